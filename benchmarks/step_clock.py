"""Seconds of a step's parts, and the rate at which a device multiplies matrices.

On a CUDA device an event is recorded wherever the part changes; nothing waits for the device
before the step has ended, so the watch does not slow down what it measures. Where the device waits
for the host, the waiting counts to the part that runs.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from reward_tuning.estimate.step_parts import Where


class StepClock:
    """Seconds of each part of a step, from `begin` to `end`; called as the part changes.

    Args:
        device: Where the step runs.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marks: list[tuple[Where | None, Any]] = []

    def begin(self) -> None:
        """Start."""
        synchronise(self._device)
        self._marks = [(None, self._now())]

    def __call__(self, ended: Where) -> None:
        """Note that a part has ended."""
        if self._marks:
            self._marks.append((ended, self._now()))

    def end(self, last: Where) -> dict[Where, float]:
        """Return the seconds of each part; `last` is the one that runs."""
        self(last)
        synchronise(self._device)
        seconds: dict[Where, float] = defaultdict(float)
        for (_, before), (where, after) in zip(self._marks, self._marks[1:]):  # noqa: B905
            assert where is not None
            if self._device.type == "cuda":
                seconds[where] += before.elapsed_time(after) / 1000
            else:
                seconds[where] += after - before
        self._marks = []
        return dict(seconds)

    def _now(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def synchronise(device: torch.device) -> None:
    """Wait for a CUDA device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(
    device: torch.device, dtype: torch.dtype, sizes: Sequence[int], seconds: float = 0.3
) -> dict[int, float]:
    """Measure the operations a second of square matrix products.

    Args:
        device: Where they run.
        dtype: Of the matrices.
        sizes: Rows and columns of each.
        seconds: Time for each size, after three products that warm up.

    Returns:
        Size to operations a second; a multiplication with its addition is two.
    """
    found = {}
    for size in sizes:
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        for _ in range(3):
            a @ b
        synchronise(device)
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            for _ in range(4):
                a @ b
            synchronise(device)
            count += 4
        found[size] = 2 * size**3 * count / (time.perf_counter() - began)
    return found
