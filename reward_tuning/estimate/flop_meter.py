"""Floating-point operations of real calls, by part of a step and by pass; and what the host reads.

Matrix products, convolutions and attention are counted, by the formulas of torch's
`FlopCounterMode` (2 for a multiplication with its addition); what is elementwise is not. The
backward pass of attention counts its four products: a fused kernel's second score matrix is that
kernel's own business, and so a CPU, a GPU and the meta device give one number.

On the meta device tensors have no values. What a step reads of them is answered with True, or 0:
"it is finite", "the re-run is exact". Each reading is written down with its place in the code: on
a GPU it makes the host wait for the device.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from reward_tuning.estimate.step_parts import Parts, Where

aten = torch.ops.aten
ROOT = Path(__file__).parents[2]
HERE = str(Path(__file__).parent)
OURS = tuple(str(ROOT / name) for name in ("base_model", "rewards", "reward_tuning"))

FUSED_BACKWARD = (
    aten._scaled_dot_product_efficient_attention_backward,
    aten._scaled_dot_product_flash_attention_backward,
    aten._scaled_dot_product_flash_attention_for_cpu_backward,
    aten._scaled_dot_product_cudnn_attention_backward,
)
READS = (aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default)
"""What needs a tensor's values on the host: `float(x)`, `bool(x)` and `.item()` are the first. So
does a copy to the CPU, as in `.tolist()`."""

Counted = tuple[str, str, str]
"""Phase, part, and `forward`, `again` (a repeated forward pass) or `backward`."""


class FlopMeter(TorchDispatchMode):
    """Count what runs within a `with`.

    Args:
        parts: Where a step is.

    Attributes:
        flops: Operations by phase, part and pass.
        reads: Readings of values on the device, by place in the code.
    """

    def __init__(self, parts: Parts | None = None) -> None:
        super().__init__()
        self._parts = parts or Parts()
        self._fused: list[bool] = []  # a `with` within a `with`: an operator taken apart
        self.flops: Counter[Counted] = Counter()
        self.reads: Counter[str] = Counter()

    def __enter__(self) -> FlopMeter:
        """Begin; attention modules run their products one by one, where the meter sees them."""
        self._fused.append(torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """End."""
        super().__exit__(*error)
        torch.backends.mha.set_fastpath_enabled(self._fused.pop())

    @property
    def total(self) -> int:
        """All operations."""
        return sum(self.flops.values())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operator, count it, and answer for a value that a meta tensor does not have."""
        kwargs = kwargs or {}
        if func in READS and args[0].device.type != "cpu":
            self.reads[place()] += 1
            if args[0].is_meta and func is READS[0]:
                return _answer(args[0].dtype)
        if _is_copy_to_host(func, args, kwargs):
            self.reads[place()] += 1
            if args[0].is_meta:
                answer = _answer(args[0].dtype)
                return torch.full(args[0].shape, answer, dtype=args[0].dtype, device="cpu")
        packet = func._overloadpacket
        if packet not in flop_registry and _comes_apart(func):
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if packet in FUSED_BACKWARD:
            count = 2 * sdpa_flop_count(*(tensor.shape for tensor in args[1:4]))
        elif packet in flop_registry:
            count = flop_registry[packet](*args, **kwargs, out_val=out)
        else:
            return out
        self.flops[(*self._where(), _pass())] += count
        return out

    def _where(self) -> Where:
        return self._parts.where


@cache
def _comes_apart(func: Any) -> bool:
    """Return whether an operator may be made of others that the meter counts."""
    keys = ("CompositeImplicitAutograd", "CompositeImplicitAutogradNestedTensor")
    return any(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key) for key in keys)


def _is_copy_to_host(func: Any, args: Any, kwargs: Mapping[str, Any]) -> bool:
    if func is not aten._to_copy.default or kwargs.get("device") is None:
        return False
    return args[0].device.type != "cpu" and torch.device(kwargs["device"]).type == "cpu"


def _pass() -> str:
    """Tell which pass an operator belongs to: a repeated forward pass records a graph within one.

    A function of one's own runs its forward without recording; a checkpoint that repeats it still
    has its hooks on what would be saved.
    """
    if torch._C._current_graph_task_id() == -1:
        return "forward"
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return "again" if torch.is_grad_enabled() or hooks is not None else "backward"


def _answer(dtype: torch.dtype) -> bool | int | float:
    if dtype == torch.bool:
        return True
    return 0.0 if dtype.is_floating_point else 0


def place() -> str:
    """Return the innermost place in this project's packages but for this room, `file:function`."""
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(OURS) and not code.co_filename.startswith(HERE):
            name = Path(code.co_filename).relative_to(ROOT).as_posix()
            return f"{name}:{getattr(code, 'co_qualname', code.co_name)}"
        frame = frame.f_back  # type: ignore[assignment]
    return "outside"
