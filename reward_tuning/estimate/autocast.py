"""Mixed precision on the meta device, which `torch.autocast` does not know.

Products and convolutions of the transformer's calls cast what they get, and a trained weight is
cast once a call, as `torch.autocast` does on a GPU (its documented lists; torch 2.15).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import checkpoint

from base_model.generator import Generator
from reward_tuning.estimate.step_parts import TRANSFORMER, Parts

CAST = frozenset(
    {
        *(F.linear, F.conv1d, F.conv2d, F.conv3d, F.scaled_dot_product_attention),
        *(torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.conv2d),
        *(torch.conv3d, Tensor.matmul, Tensor.__matmul__, Tensor.bmm, Tensor.mm),
    }
)
"""Functions that compute in half precision."""
WHOLE = frozenset({F.layer_norm, F.group_norm, F.softmax, torch.softmax, Tensor.softmax})
"""Functions that compute in float32."""


class _Casting(TorchFunctionMode):
    def __init__(self, parts: Parts, dtype: torch.dtype) -> None:
        super().__init__()
        self._parts, self._dtype = parts, dtype
        self.kept: dict[int, Tensor] | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Cast the arguments of a function of the transformer."""
        if self._parts.part in TRANSFORMER and (func in CAST or func in WHOLE):
            dtype = self._dtype if func in CAST else torch.float32
            args, kwargs = tree_map(lambda one: self._cast(one, dtype), (args, dict(kwargs or {})))
        return func(*args, **(kwargs or {}))

    def _cast(self, value: Any, dtype: torch.dtype) -> Any:
        if not isinstance(value, Tensor) or value.dtype in (dtype, torch.float64):
            return value
        if not value.is_floating_point():
            return value
        if self.kept is None or not (value.requires_grad and value.is_leaf):
            return value.to(dtype)
        if id(value) not in self.kept:
            self.kept[id(value)] = value.to(dtype)
        return self.kept[id(value)]


@contextmanager
def autocast_calls(parts: Parts, generator: Generator, dtype: str | None) -> Iterator[None]:
    """Let calls of a transformer on the meta device compute in half precision.

    Args:
        parts: Tells when the transformer computes.
        generator: The transformer's; its `velocity` is replaced within the context.
        dtype: Name of the dtype; None leaves everything as it is.
    """
    if dtype is None:
        yield
        return
    mode, plain = _Casting(parts, getattr(torch, dtype)), generator.velocity
    transformer = generator.transformer

    def velocity(*arguments: Any, **options: Any) -> Tensor:
        mode.kept = {}
        try:
            return plain(*arguments, **options)
        finally:
            mode.kept = None

    generator.velocity = velocity  # type: ignore[method-assign]
    repeats = transformer.gradient_checkpointing
    if repeats:  # a mode is off while `backward` runs, and blocks run again there
        again = partial(checkpoint, use_reentrant=False, context_fn=lambda: (nullcontext(), mode))
        transformer.enable_gradient_checkpointing(again)
    try:
        with mode:
            yield
    finally:
        generator.velocity = plain  # type: ignore[method-assign]
        if repeats:
            transformer.enable_gradient_checkpointing()
