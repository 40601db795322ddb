"""Counts what autograd holds for backward."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor


class _Box(list[Tensor]):
    __slots__ = ("__weakref__",)


class LiveBytes:
    """Bytes of distinct storages saved for backward, now and at the peak, parameters left out."""

    def __init__(self, parameters: Iterable[Tensor] = ()) -> None:
        self.held = {p.untyped_storage().data_ptr() for p in parameters}
        self.live: Counter[int] = Counter()  # address of a storage: how often it is saved
        self.now = self.peak = 0

    def __enter__(self) -> LiveBytes:
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda box: box[0])
        self.hooks.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.hooks.__exit__(*exception)

    def pack(self, tensor: Tensor) -> _Box:
        box = _Box([tensor.detach()])  # an output itself would hold its own graph in a cycle
        storage = tensor.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        if address not in self.held:
            if address not in self.live:
                self.now += size
            self.live[address] += 1
            weakref.finalize(box, self.release, address, size)
            self.peak = max(self.peak, self.now)
        return box

    def release(self, address: int, size: int) -> None:
        self.live[address] -= 1
        if not self.live[address]:
            del self.live[address]
            self.now -= size
