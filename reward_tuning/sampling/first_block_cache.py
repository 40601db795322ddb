"""Skip most of a model call if its first block's residual has changed little.

First Block Cache (github.com/chengzeyi/ParaAttention, after TeaCache, arXiv 2411.19108) as in
diffusers: the first block always runs; if its residual differs little from that of the last call
computed in full, the residual of the other blocks is reused from that call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from base_model.core.family import FAMILY
from reward_tuning.errors import TuningError

_CONTEXT = "rollout"  # one name: both guidance branches of a step are one batch
_OPTIONS = "first-block cache (rollout.cache of a recipe, --cache of generate)"


class FirstBlockCache:
    """The cache on a transformer's blocks, within a `with`; afterwards the model is unchanged.

    One `with` is one rollout and starts with an empty cache.

    Args:
        transformer: An `EasyAnimateTransformer3DModel`.
        threshold: The other blocks run if the mean absolute change of the first block's residual
            exceeds this share of its mean absolute value.

    Attributes:
        full_calls: Number of calls in which every block ran.

    Raises:
        TuningError: The installed diffusers has no such cache, or the model has a single block.
    """

    def __init__(self, transformer: Any, threshold: float) -> None:
        require_first_block_cache()
        if len(getattr(transformer, FAMILY.blocks)) < 2:
            raise TuningError(
                f"{_OPTIONS}: the transformer has one block, so nothing can be skipped"
            )
        self._transformer = transformer
        self._threshold = threshold
        self.full_calls = 0

    def __enter__(self) -> FirstBlockCache:
        """Put diffusers' hooks on the blocks."""
        from diffusers.hooks import HookRegistry, first_block_cache
        from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry

        blocks = getattr(self._transformer, FAMILY.blocks)
        modules = (self._transformer, *blocks)
        self._without_registry = [m for m in modules if not hasattr(m, "_diffusers_hook")]
        self._own_forward = [m for m in modules if "forward" not in vars(m)]
        TransformerBlockRegistry.register(
            type(blocks[0]),
            TransformerBlockMetadata(
                return_hidden_states_index=0, return_encoder_hidden_states_index=1
            ),
        )
        config = first_block_cache.FirstBlockCacheConfig(threshold=self._threshold)
        first_block_cache.apply_first_block_cache(self._transformer, config)
        self._registry = HookRegistry.check_if_exists_or_initialize(self._transformer)
        if hasattr(self._registry, "invalidate_child_registries_cache"):  # newer diffusers
            self._registry.invalidate_child_registries_cache()
        leader = blocks[0]._diffusers_hook.get_hook(first_block_cache._FBC_LEADER_BLOCK_HOOK)
        self._state = leader.state_manager
        self._batch: int | None = None
        self._batch_hook = self._transformer.register_forward_pre_hook(self._meet_batch)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove the hooks."""
        from diffusers.hooks import first_block_cache

        self._batch_hook.remove()
        for name in (first_block_cache._FBC_LEADER_BLOCK_HOOK, first_block_cache._FBC_BLOCK_HOOK):
            self._registry.remove_hook(name, recurse=True)
        for module in self._without_registry:
            del module._diffusers_hook
        for module in self._own_forward:
            vars(module).pop("forward", None)  # restores the forward of its class

    def _meet_batch(self, module: Any, args: Sequence[Any]) -> None:
        """Run every block where the batch changes: at the ends of an interval of guidance."""
        batch = len(args[0])
        if self._batch not in {None, batch}:
            self._state.get_state().head_block_residual = None
        self._batch = batch

    @contextmanager
    def call(self, *, full: bool = False) -> Iterator[None]:
        """Enter around each model call of the rollout; `full` runs every block in any case."""
        from diffusers.models.cache_utils import CacheMixin

        if full:
            self._registry.reset_stateful_hooks()
        with CacheMixin.cache_context(self._transformer, _CONTEXT):
            yield
            self.full_calls += bool(self._state.get_state().should_compute)


def require_first_block_cache() -> None:
    """Check that the installed diffusers has the cache.

    Raises:
        TuningError: It does not.
    """
    import diffusers

    try:
        from diffusers.hooks import first_block_cache  # noqa: F401
        from diffusers.hooks._helpers import TransformerBlockRegistry  # noqa: F401
        from diffusers.models.cache_utils import CacheMixin

        found = hasattr(CacheMixin, "cache_context")
    except ImportError:
        found = False
    if not found:
        raise TuningError(
            f"{_OPTIONS}: the installed diffusers {diffusers.__version__} has no first-block cache "
            "(added in 0.35); install diffusers 0.35 or newer, or leave the option out"
        )
