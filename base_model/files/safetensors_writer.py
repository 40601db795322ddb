"""Writes a safetensors file tensor by tensor, so that no file is ever whole in memory.

`safetensors.torch.save_file` wants every tensor of a file at once, which for one published
checkpoint is 24 GB. The bytes written here are the same as its.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import Tensor

# Names in the format -> dtypes, in the order in which the library lays tensors out: widest first.
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
    """What a file says of one tensor.

    Attributes:
        name: Its key.
        dtype: Its dtype, as the format names it ("F32").
        shape: Its shape.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its data."""
        return prod(self.shape) * DTYPES[self.dtype].itemsize


def write_tensors(
    path: Path,
    specs: Sequence[TensorSpec],
    read: Callable[[str], Tensor],
    *,
    metadata: Mapping[str, str] | None = None,
    wrote: Callable[[int], None] = lambda count: None,
) -> None:
    """Writes one file and flushes it to the disk.

    Args:
        path: The new file.
        specs: Its tensors, in any order.
        read: Gives a tensor by its name, of the dtype and shape of its spec, on the CPU.
        metadata: What the file says of itself; None is the format's least, "format": "pt".
        wrote: Told after each tensor how many bytes it had.

    Raises:
        OSError: When it cannot be written; part of it may be there.
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
    """Length (8 bytes, little endian) and JSON, padded so that the data begins at 8-byte steps."""
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
