"""A device boundary on one CPU: resting weights are poison, copies are counted while they live."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef


class Boundary:
    """Copies real weights for `base_model.memory.offload`, and spoils what rests.

    What rests is NaN (0 for integers) once `close` was called, so that a pass which touches it
    cannot end in the right numbers: on a GPU it would have met a tensor of the wrong device.
    """

    def __init__(self) -> None:
        self.real: dict[int, Tensor] = {}
        self.live: list[tuple[StorageWeakRef, int]] = []
        self.copies = self.peak = 0

    def close(self, modules: Any) -> None:
        for module in modules:
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.requires_grad:
                    continue
                self.real[tensor.data_ptr()] = tensor.detach().clone()
                tensor.data.fill_(float("nan") if tensor.is_floating_point() else 0)

    def __call__(self, tensor: Tensor, device: torch.device) -> Tensor:
        copy = self.real[tensor.data_ptr()].clone()
        self.copies += 1
        self.live.append((StorageWeakRef(copy.untyped_storage()), copy.nbytes))
        self.peak = max(self.peak, self.bytes)
        return copy

    @property
    def bytes(self) -> int:
        """Bytes of copies that are alive."""
        self.live = [(storage, size) for storage, size in self.live if not storage.expired()]
        return sum(size for _, size in self.live)


def bytes_of(module: Any) -> int:
    return sum(t.nbytes for t in (*module.parameters(), *module.buffers()))
