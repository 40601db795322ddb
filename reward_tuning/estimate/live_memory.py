"""Bytes of all tensors alive on the meta device, now and at the peak of each phase.

A tensor without values is made and freed when one with values would be, so the step that training
runs shows what it holds. What a kernel uses for itself, and what an allocator keeps, is not seen.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from reward_tuning.estimate.cpu_convolution import scratch_bytes

ACTIVATIONS = "activations"
CONVOLUTION = torch.ops.aten.convolution.default
CONVOLUTION_BACKWARD = torch.ops.aten.convolution_backward.default


class _Storage:
    """One storage, as long as it lives."""

    def __init__(self, size: int, what: str) -> None:
        self.size, self.what = size, what


class LiveMemory(TorchDispatchMode):
    """Follow the tensors on the meta device that are made within a `with`, or named.

    Args:
        phase: Returns the phase that runs now.
        cpu: Count what convolutions take for themselves on a CPU (`cpu_convolution`).

    Attributes:
        peaks: Phase to what was alive at its peak: bytes by what they are.
    """

    def __init__(self, phase: Callable[[], str], *, cpu: bool = False) -> None:
        super().__init__()
        self._phase, self._cpu = phase, cpu
        self._alive: dict[int, _Storage] = {}
        self._now: Counter[str] = Counter()
        self._total = 0
        self._highest: Counter[str] = Counter()
        self.peaks: dict[str, Mapping[str, int]] = {}

    @property
    def now(self) -> Mapping[str, int]:
        """Bytes that are alive, by what they are."""
        return {what: size for what, size in self._now.items() if size}

    def name(self, tensors: Iterable[Tensor], what: str) -> None:
        """Say what tensors are; those that nobody names are activations.

        Args:
            tensors: On the meta device; others are left out.
            what: Such as `weights`.
        """
        for tensor in tensors:
            if not tensor.is_meta:
                continue
            storage = self._follow(tensor)
            self._now[storage.what] -= storage.size
            storage.what = what
            self._now[what] += storage.size

    def begin(self) -> None:
        """Forget the peaks so far."""
        self._highest.clear()
        self.peaks.clear()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operator, and follow what it returns."""
        del types
        out = func(*args, **(kwargs or {}))
        for one in tree_iter(out):
            if isinstance(one, Tensor) and one.is_meta:
                self._follow(one)
        if self._cpu and func is CONVOLUTION and out.is_meta:
            self._see(scratch_bytes(args, out))
        if self._cpu and func is CONVOLUTION_BACKWARD and args[0].is_meta:
            self._see(scratch_bytes((*args[1:3], None, *args[4:]), args[0]))
        return out

    def _follow(self, tensor: Tensor) -> _Storage:
        storage = tensor.untyped_storage()
        place = id(storage)  # one Python object stands for a storage as long as that lives
        if place in self._alive:
            return self._alive[place]
        found = self._alive[place] = _Storage(storage.nbytes(), ACTIVATIONS)
        self._now[found.what] += found.size
        self._total += found.size
        weakref.finalize(storage, self._freed, place)
        self._see()
        return found

    def _see(self, besides: int = 0) -> None:
        """Remember a peak, with bytes that are alive for this moment alone."""
        phase = self._phase()
        if self._total + besides > self._highest[phase]:
            self._highest[phase] = self._total + besides
            alive = Counter(self.now)
            alive[ACTIVATIONS] += besides
            self.peaks[phase] = alive

    def _freed(self, place: int) -> None:
        storage = self._alive.pop(place)
        self._now[storage.what] -= storage.size
        self._total -= storage.size
