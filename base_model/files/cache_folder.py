"""Cache folder for files that can be made again."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from base_model.errors import GeneratorError


def cache_folder(part: str) -> Path:
    """Return the cache folder of one kind: in $REWARD_TUNING_CACHE, else in the user's cache.

    Args:
        part: Name of the folder.

    Returns:
        The folder, which may not exist yet.
    """
    if given := os.environ.get("REWARD_TUNING_CACHE"):
        return Path(given).expanduser() / part
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "reward-tuning" / part


def made_once(name: str, fill: Callable[[Path], None], *, advice: str) -> Path:
    """Return a checkpoint folder in the cache; fill it if it is not there yet.

    Args:
        name: Name of the folder; it includes a hash of everything that decides the content.
        fill: Function that writes the content into an empty folder, which is then renamed.
        advice: Sentences for the message: why the folder is written, and what to do if it cannot
            be.

    Raises:
        GeneratorError: The cache cannot be written.
    """
    home = cache_folder("checkpoints")
    target = home / name
    if target.is_dir():
        return target
    temporary: Path | None = None
    try:
        home.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=home))
        fill(temporary)
        temporary.rename(target)
    except OSError as error:
        if target.is_dir():  # another process was faster
            return target
        raise GeneratorError(
            f"{target} could not be written: {error.strerror or error}. {advice}"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return target
