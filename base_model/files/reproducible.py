"""Write a safetensors file whose bytes depend on its content alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file as bytes, the same for the same content.

    The library keeps metadata in a hash map and writes more than one entry in an order that
    changes from call to call; here the header is written again with sorted metadata.

    Args:
        tensors: Any dtypes; made contiguous.
        metadata: Text by name; `format` must be `pt` for transformers to load the file.
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
    """Write `safetensors_bytes` to a file, whole or not at all; one that is there is replaced."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(safetensors_bytes(tensors, metadata))
    temporary.replace(path)
