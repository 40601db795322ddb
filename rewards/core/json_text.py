"""Read the JSON in a judge's file or folder, which may be truncated or of something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rewards.errors import RewardError


def json_object(text: str, source: str) -> dict[str, Any]:
    """Parse an object.

    Args:
        text: JSON text of the object.
        source: Name of its origin, for the message.

    Raises:
        RewardError: It is not JSON, or not an object.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise RewardError(
            f"{source} is not valid JSON ({reason}): it is truncated or damaged. Fetch or make it "
            "again"
        ) from error
    if not isinstance(found, dict):
        raise RewardError(
            f"{source} contains a {type(found).__name__} instead of named values: it is damaged or "
            "belongs to something else. Fetch or make it again"
        )
    return found


def json_file(path: Path) -> dict[str, Any]:
    """Read the object in a file.

    Raises:
        RewardError: It cannot be read, is not JSON in UTF-8, or not an object.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RewardError(f"{path} cannot be read ({error}). Fetch or make it again") from error
    return json_object(text, str(path))
