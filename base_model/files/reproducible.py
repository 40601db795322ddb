"""Safetensors files whose bytes depend on their content alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Return a safetensors file as bytes, the same for the same content.

    The library keeps metadata in a hash map and writes several entries in an order that changes
    from call to call; here the header is rewritten with sorted metadata.

    Args:
        tensors: Tensors of any dtype; they are made contiguous.
        metadata: Text by name; transformers loads the file only if `format` is `pt`.
    """
    plain = safetensors.torch.save({name: t.contiguous() for name, t in tensors.items()})
    length = int.from_bytes(plain[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(plain[8 : 8 + length])}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the format keeps its data aligned to 8 bytes
    return len(text).to_bytes(8, "little") + text + plain[8 + length :]


def save_reproducibly(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write `safetensors_bytes` to a file atomically; an existing file is replaced."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(safetensors_bytes(tensors, metadata))
    temporary.replace(path)
