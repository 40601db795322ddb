"""Counts what autograd holds for backward."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

import torch
from torch import Tensor


class _Box(list[Tensor]):
    __slots__ = ("__weakref__",)


class LiveBytes:
    """Bytes of distinct storages saved for backward, now and at the peak, parameters left out."""

    def __init__(self, parameters: Iterable[Tensor] = ()) -> None:
        self.held = {p.untyped_storage().data_ptr() for p in parameters}
        self.live: dict[int, tuple[int, int]] = {}
        self.peak = 0

    def __enter__(self) -> LiveBytes:
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda box: box[0])
        self.hooks.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.hooks.__exit__(*exception)

    def pack(self, tensor: Tensor) -> _Box:
        box = _Box([tensor])
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.held:
            self.live[id(box)] = (storage.data_ptr(), storage.nbytes())
            weakref.finalize(box, self.live.pop, id(box))
            self.peak = max(self.peak, sum(dict(self.live.values()).values()))
        return box
