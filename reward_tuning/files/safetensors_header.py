"""Read the header of a safetensors file without importing torch: metadata, shapes, length."""

import json
from pathlib import Path
from typing import Any

METADATA = "__metadata__"
MAX_HEADER = 2**24  # bytes; a longer header is a damaged file


def safetensors_metadata(path: Path) -> dict[str, str]:
    """Read a file's metadata: 8 bytes of length, then a JSON header.

    Returns:
        Texts by name; empty for a truncated or foreign file, which is reported when it is loaded.
    """
    metadata: dict[str, str] = _header(path).get(METADATA, {})
    return metadata


def safetensors_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the shape of each tensor of a file; empty for a truncated or foreign file."""
    header = _header(path)
    return {name: tuple(about["shape"]) for name, about in header.items() if name != METADATA}


def is_whole(path: Path) -> bool:
    """Return whether a file has the length that its header says; its numbers are not read."""
    try:
        header = _header(path)
    except ValueError:
        return False
    ends = [about["data_offsets"][1] for name, about in header.items() if name != METADATA]
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    return bool(header) and path.stat().st_size == 8 + length + max(ends, default=0)


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(MAX_HEADER, path.stat().st_size):
            return {}
        header: dict[str, Any] = json.loads(file.read(length))
    return header
