"""From a cache's name to its object, and what is refused before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from base_model.files.shipped import resolve_checkpoint
from reward_tuning.errors import TuningError
from reward_tuning.sampling.cheap_steps import CheapSteps
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.sampling.step_cache import check_cache_in, step_cache
from reward_tuning.schema.cache_kinds import CacheSection, FirstBlock, Taylor, TeaCache
from tests.goldens import write_checkpoint
from tests.reward_tuning import double_sampler
from tests.reward_tuning.cheap_rollouts import walked

sampler = double_sampler.sampler
FIVE = (0.0, 0.0, 0.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("cache", "full"),
    [
        (FirstBlock(threshold=1e9), 1),  # the first
        (TeaCache(threshold=1e9, coefficients=FIVE), 2),  # and the last
        (Taylor(interval=9, warm_up=1, order=0), 2),  # or the one before it
    ],
)
def test_each_kind_in_a_rollout_of_four_steps(
    sampler: ClipSampler, cache: CacheSection, full: int
) -> None:
    assert walked(sampler, CheapSteps(cache), ())[1] == full


def test_teacache_without_coefficients_is_refused(sampler: ClipSampler, tmp_path: Path) -> None:
    """From the config of a checkpoint, and of a model; not where they are given or known."""
    golden = write_checkpoint(tmp_path)
    with pytest.raises(TuningError, match="no coefficients are known"):
        check_cache_in(TeaCache(), golden)
    with pytest.raises(TuningError, match="no coefficients are known"):
        step_cache(TeaCache(), sampler.generator.transformer, 4)
    check_cache_in(TeaCache(coefficients=FIVE), golden)
    check_cache_in(FirstBlock(), golden)
    check_cache_in(None, golden)
    check_cache_in(TeaCache(), Path(resolve_checkpoint("tiny")))
