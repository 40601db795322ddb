"""One interface for all caches of sampler steps: what a rollout or a clip enters around its calls.

Both guidance branches of a step are one batch, so they share one decision, as in the pipelines
that published these caches for this family.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from base_model.files.weight_files import read_json
from reward_tuning.sampling.first_block_cache import FirstBlockCache
from reward_tuning.sampling.taylor import TaylorCache
from reward_tuning.sampling.teacache import TeaCacheHooks, coefficients_of, shape_in, shape_of
from reward_tuning.schema.cache_kinds import CacheSection, FirstBlock, TeaCache


class StepCache(Protocol):
    """A cache on a model, within a `with`; afterwards the model is unchanged.

    One `with` is one rollout or clip and starts empty.
    """

    full_calls: int
    """Number of calls in which every block ran."""

    def __enter__(self) -> StepCache:
        """Begin with nothing in the cache."""

    def __exit__(self, *error: Any) -> None:
        """Leave the model as it was."""

    def call(self, *, full: bool = False) -> AbstractContextManager[None]:
        """Enter around each step's model call; `full` runs every block in any case."""


def step_cache(cache: CacheSection, transformer: Any, steps: int) -> StepCache:
    """Return a cache for `steps` calls of a transformer.

    Args:
        cache: The kind and its numbers.
        transformer: An `EasyAnimateTransformer3DModel`.
        steps: Number of steps of the rollout; TeaCache always computes the last
            one, the Taylor prediction the one before it.

    Raises:
        TuningError: The cache cannot work on this model or with the installed diffusers.
    """
    if isinstance(cache, FirstBlock):
        return FirstBlockCache(transformer, cache.threshold)
    if isinstance(cache, TeaCache):
        coefficients = cache.coefficients or coefficients_of(shape_of(transformer.config))
        return TeaCacheHooks(transformer, coefficients, cache.threshold, steps)
    return TaylorCache(transformer, cache, steps)


def check_cache_in(cache: CacheSection | None, checkpoint: Path) -> None:
    """Refuse a cache that lacks what a checkpoint's transformer needs, before it is loaded.

    Args:
        cache: The kind and its numbers; None needs nothing.
        checkpoint: Folder of the checkpoint, in either layout.

    Raises:
        TuningError: TeaCache has no coefficients, and none are known for this transformer.
    """
    if not isinstance(cache, TeaCache) or cache.coefficients is not None:
        return
    config = read_json(checkpoint / "transformer" / "config.json")
    coefficients_of(shape_in(config))
