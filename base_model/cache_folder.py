"""Where things are kept that can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(part: str) -> Path:
    """A folder for one kind of things: in $REWARD_TUNING_CACHE, else in the user's cache.

    Args:
        part: Its name.

    Returns:
        The folder, which may not be there yet.
    """
    if given := os.environ.get("REWARD_TUNING_CACHE"):
        return Path(given).expanduser() / part
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "reward-tuning" / part
