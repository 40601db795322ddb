"""Copies to a device that run beside its computation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class SideStream:
    """Copy tensors to a device on a stream of its own; a `copy` and `arrived` for `Offload`.

    The memory of a copy belongs to the computation's stream, which alone uses and frees it: what
    that stream has freed is used again by its next copy. A copy therefore waits for all work that
    the computation had been given before it, and overlaps with all that comes after; whoever uses
    the copies calls `arrived` first. Tensors should lie in pinned memory, or the host waits.

    Args:
        device: Device that computes.
        library: Module with `Stream`, `stream` and `current_stream`; None takes the device's, such
            as `torch.cuda`.
    """

    def __init__(self, device: torch.device, library: Any = None) -> None:
        self._device = device
        self._library = library or torch.get_device_module(device)
        self._stream = self._library.Stream(device)

    def __call__(self, tensor: Tensor, device: torch.device) -> Tensor:
        """Begin to copy a tensor; the copy must not be read before `arrived`."""
        there = torch.empty_like(tensor, device=device)
        self._stream.wait_stream(self._library.current_stream(self._device))
        with self._library.stream(self._stream):
            there.copy_(tensor, non_blocking=True)
        return there

    def arrived(self) -> None:
        """Let all later work of the computation wait for every copy that has begun."""
        self._library.current_stream(self._device).wait_stream(self._stream)
