"""What a safetensors file says of itself, read without torch."""

import json
from pathlib import Path

MOST_HEADER = 2**24  # bytes of a safetensors header that are believed


def metadata_of(path: Path) -> dict[str, str]:
    """Read a file's metadata: 8 bytes of length, then a JSON header.

    Returns:
        Texts by name; nothing where the file is cut off or of another kind, which whoever loads it
        says.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(MOST_HEADER, path.stat().st_size):
            return {}
        header = json.loads(file.read(length))
    metadata: dict[str, str] = header.get("__metadata__", {})
    return metadata
