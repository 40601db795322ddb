"""Read the metadata of a safetensors file without importing torch."""

import json
from pathlib import Path

MAX_HEADER = 2**24  # bytes; a longer header is a damaged file


def safetensors_metadata(path: Path) -> dict[str, str]:
    """Read a file's metadata: 8 bytes of length, then a JSON header.

    Returns:
        Texts by name; empty for a truncated or foreign file, which is reported when it is loaded.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(MAX_HEADER, path.stat().st_size):
            return {}
        header = json.loads(file.read(length))
    metadata: dict[str, str] = header.get("__metadata__", {})
    return metadata
