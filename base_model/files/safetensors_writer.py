"""Write a safetensors file tensor by tensor, so that it is never complete in memory.

`safetensors.torch.save_file` takes all tensors of a file at once, 24 GB for one published
checkpoint. The bytes are the same as its.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

# Dtypes by their names in the format, in the order in which the library lays out tensors: widest
# first.
DTYPES: Mapping[str, torch.dtype] = {
    "I64": torch.int64,
    "F64": torch.float64,
    "F32": torch.float32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I16": torch.int16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_ORDER = {name: place for place, name in enumerate(DTYPES)}


@dataclass(frozen=True)
class TensorSpec:
    """Header entry of one tensor.

    Attributes:
        name: Key.
        dtype: Dtype by its name in the format ("F32").
        shape: Shape.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of the data in bytes."""
        return prod(self.shape) * DTYPES[self.dtype].itemsize


def write_tensors(
    path: Path,
    specs: Sequence[TensorSpec],
    read: Callable[[str], Tensor],
    *,
    metadata: Mapping[str, str] | None = None,
    wrote: Callable[[int], None] = lambda count: None,
) -> None:
    """Write one file and flush it to the disk.

    Args:
        path: Path of the new file.
        specs: Tensors, in any order.
        read: Function that returns a tensor by name, with the dtype and shape of its spec, on the
            CPU.
        metadata: Metadata of the file; None writes the minimum, "format": "pt".
        wrote: Callback, called after each tensor with its size in bytes.

    Raises:
        OSError: The file cannot be written; part of it may exist.
    """
    ordered = sorted(specs, key=lambda spec: (_ORDER[spec.dtype], spec.name))
    with path.open("xb") as file:
        file.write(_header(ordered, metadata or {"format": "pt"}))
        for spec in ordered:
            tensor = read(spec.name)
            assert tuple(tensor.shape) == spec.shape, spec
            assert tensor.dtype == DTYPES[spec.dtype], spec
            # Bytes, not numbers: a NaN keeps its payload.
            file.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
            wrote(spec.nbytes)
        file.flush()
        os.fsync(file.fileno())


def _header(specs: Sequence[TensorSpec], metadata: Mapping[str, str]) -> bytes:
    """Return the length (8 bytes, little endian) and the JSON, padded to a multiple of 8 bytes."""
    table: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))}
    begin = 0
    for spec in specs:
        end = begin + spec.nbytes
        table[spec.name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
