"""Equal towers of several judges held once, and their image features computed once a call.

HPSv2.1, CLIP and PickScore are each tuned from the same ViT-H-14, so their published weights
differ and nothing of them is shared. Equal are one file under two kinds or two prompts (`hps` and
a `relative` of it, an aesthetic head on the `clip` beside it), and towers of which only the
text side was tuned. Whether weights are equal is told by their content, not by their name.
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
    """Frozen networks by their content. A network stays only as long as a judge holds it."""

    def __init__(self) -> None:
        self._held: WeakValueDictionary[str, nn.Module] = WeakValueDictionary()

    def held(self, module: Any, *says: object) -> Any:
        """The network of equal content that is held already, or else this one.

        Args:
            module: Frozen, on its device, in its dtype.
            says: What its tensors do not say of its function, such as its configuration.
        """
        return self._held.setdefault(content(module, *says), module)

    def clip(self, model: Any, *says: object) -> Any:
        """As `held` for a CLIP; of one that differs in its texts alone, the image tower."""
        found = self.held(model, *says)
        if found is model:
            model.visual = self.held(model.visual, *says)
        return found


def content(module: nn.Module, *says: object) -> str:
    """A digest of a network's tensors, with their names, dtypes and devices.

    Args:
        module: Any.
        says: What goes into the digest beside; must have a JSON form or a text.
    """
    digest = hashlib.sha256(json.dumps(says, sort_keys=True, default=str).encode())
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.device}".encode())
        # As bytes: numpy, which hashlib reads from without a copy, has no bf16.
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


class _Call:
    """What was made from the frames of one call. Tensors are told apart as objects."""

    def __init__(self, frames: Tensor) -> None:
        self.known: dict[int, Tensor] = {id(frames): frames}
        self.made: dict[Hashable, Tensor] = {}


_call: ContextVar[_Call | None] = ContextVar("frames that several judges see", default=None)


@contextmanager
def seen_by_several(frames: Tensor) -> Iterator[None]:
    """Let judges that are asked within share what they make of these very frames.

    Only what is made from this tensor object is shared, so another tensor of the same values, a
    chunk, or frames that were augmented for one judge are computed as without. Two judges then hang
    on one graph: the gradient of a sum is exact, and a gradient of each needs `retain_graph`, as
    any graph in common does. Everything is let go at the end.

    Args:
        frames: `(b, f, 3, H, W)`, what the judges are called with.
    """
    token = _call.set(_Call(frames))
    try:
        yield
    finally:
        _call.reset(token)


def derived(source: Tensor, what: Hashable, make: Callable[[], Tensor]) -> Tensor:
    """A tensor made from another one: made once a call if that comes from the call's frames.

    Args:
        source: What it is made from, told apart as an object.
        what: Says how it is made.
        make: Makes it, a function of `source` alone.
    """
    call = _call.get()
    if call is None or id(source) not in call.known:
        return make()
    # In-place changes count up the version; without gradient it is another tensor than with.
    key = (id(source), source._version, torch.is_grad_enabled(), what)
    if key not in call.made:
        result = make()
        call.made[key] = result
        call.known[id(result)] = result
    return call.made[key]


def unique_bytes(modules: Mapping[str, nn.Module] | list[nn.Module]) -> int:
    """Bytes of the tensors of several networks, each tensor counted once."""
    networks = list(modules.values()) if isinstance(modules, Mapping) else modules
    tensors = {id(t): t for m in networks for t in (*m.parameters(), *m.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values())
