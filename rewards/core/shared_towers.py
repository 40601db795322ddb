"""Keep equal towers of several judges once, and compute their image features once per call.

HPSv2.1, CLIP and PickScore are each tuned from the same ViT-H-14, so their published weights
differ and nothing of them is shared. Equal are one file under two kinds or two prompts (`hps` and
a `relative` of it, an aesthetic head on the recipe's `clip`), and towers of which only the text
side was tuned. Weights are compared by their content, not by their name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn


class TowerPool:
    """Frozen networks by their content. A network stays only as long as a judge uses it."""

    def __init__(self) -> None:
        self._held: WeakValueDictionary[str, nn.Module] = WeakValueDictionary()

    def share(self, module: Any, *properties: object) -> Any:
        """Return the network of equal content that is already in the pool, or else this one.

        Args:
            module: Frozen network, on its device, in its dtype.
            properties: Whatever else its function depends on, such as its configuration.
        """
        return self._held.setdefault(content_digest(module, *properties), module)

    def share_clip(self, model: Any, *properties: object) -> Any:
        """Share a CLIP; if only its text side differs from another one, its image tower."""
        found = self.share(model, *properties)
        if found is model:
            model.visual = self.share(model.visual, *properties)
        return found


def content_digest(module: nn.Module, *properties: object) -> str:
    """Return a digest of a network's tensors, with their names, dtypes and devices.

    Args:
        module: Any network.
        properties: Further values in the digest; each has a JSON form or a text.
    """
    digest = hashlib.sha256(json.dumps(properties, sort_keys=True, default=str).encode())
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.device}".encode())
        # As bytes: numpy, which hashlib reads from without a copy, has no bf16.
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


class _Call:
    """The tensors derived from the frames of one call, identified as objects."""

    def __init__(self, frames: Tensor) -> None:
        self.known: dict[int, Tensor] = {id(frames): frames}
        self.made: dict[Hashable, Tensor] = {}


_call: ContextVar[_Call | None] = ContextVar("frames shared by several judges", default=None)


@contextmanager
def frames_shared(frames: Tensor) -> Iterator[None]:
    """Make the judges that are called within this context share what they derive from these frames.

    Only tensors derived from this tensor object are shared; another tensor of the same values, a
    chunk, or frames that are augmented for one judge are computed separately. Two judges are then
    part of one graph: the gradient of their sum is exact, and a gradient of each needs
    `retain_graph`, as with any common graph. Everything is released at the end.

    Args:
        frames: `(b, f, 3, H, W)`, the very tensor that the judges are called with.
    """
    token = _call.set(_Call(frames))
    try:
        yield
    finally:
        _call.reset(token)


def derived(source: Tensor, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
    """Compute a tensor from another one: once per call, if that comes from the call's frames.

    Args:
        source: Tensor that it is computed from, identified as an object.
        key: Identifies the computation.
        make: Function that computes it from `source` alone.
    """
    call = _call.get()
    if call is None or id(source) not in call.known:
        return make()
    # In-place changes increase the version; with and without gradient the tensors differ.
    entry = (id(source), source._version, torch.is_grad_enabled(), key)
    if entry not in call.made:
        result = make()
        call.made[entry] = result
        call.known[id(result)] = result
    return call.made[entry]


def unique_bytes(modules: Mapping[str, nn.Module] | list[nn.Module]) -> int:
    """Return the size in bytes of the tensors of several networks, each tensor counted once."""
    networks = list(modules.values()) if isinstance(modules, Mapping) else modules
    tensors = {id(t): t for m in networks for t in (*m.parameters(), *m.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values())
