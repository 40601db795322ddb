"""Files written whole or not at all: a crash or a full disk leaves the earlier content."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from pathlib import Path

from reward_tuning.errors import TuningError

SPACE = "free some space"
"""Start of each advice; `not_written` replaces it for other faults than a full disk."""
RESUME = f"{SPACE}, then continue with `reward-tuning resume` on the run folder"
ANOTHER_PLACE = f"{SPACE} or choose another place"
ANOTHER_OUTPUT = f"{ANOTHER_PLACE} with output=DIR"
EXPORT_AGAIN = f"{ANOTHER_PLACE}, and export again"
REMEDIES = {
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
    errno.EROFS: "make it writable",
    errno.ENOENT: "check where its folder has gone",
    errno.ENOTDIR: "a part of its path is a file, not a folder; remove or rename that file",
    errno.EIO: "check the disk",
}
"""Remedies for other faults than a full disk."""
LEFTOVER = re.compile(r"\..+\.(?:(?:tmp|old)-\d+|part\.(?:mp4|gif|png))")


def atomic_write(path: Path, content: bytes, *, advice: str = RESUME) -> None:
    """Write a file under a temporary name, flush it to the disk and rename it.

    Args:
        path: Target; missing folders are created.
        content: Content of the file.
        advice: Next step after a failure, for the message.

    Raises:
        TuningError: The file cannot be written; its earlier content is unchanged.
    """
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise not_written(path, error, advice=advice) from error
    finally:
        with contextlib.suppress(OSError):  # the folder is a file, as reported above
            temporary.unlink(missing_ok=True)


def temporary_path(path: Path, kind: str = "tmp") -> Path:
    """Return a hidden name in the same folder that no other process uses."""
    return path.with_name(f".{path.name}.{kind}-{os.getpid()}")


def is_leftover(path: Path) -> bool:
    """Return whether a killed process has left a file or folder: its name is a temporary one.

    Besides those of `temporary_path` also those of clips (`reward_tuning.files.clips`).
    """
    return LEFTOVER.fullmatch(path.name) is not None


def not_written(path: Path, error: Exception, *, advice: str = RESUME) -> TuningError:
    """Return the error for a file that could not be written, with advice that fits the fault."""
    reason = getattr(error, "strerror", None) or str(error)
    number = getattr(error, "errno", None)
    advice = advice.replace(SPACE, REMEDIES.get(number or 0, SPACE), 1)
    return TuningError(
        f"{path} could not be written: {reason}. Its earlier content is unchanged; {advice}"
    )


def check_writable(folder: Path) -> None:
    """Check that files can be created in a folder, which need not exist yet; leave nothing behind.

    Call this before hours of work whose result goes into the folder.

    Raises:
        TuningError: No file can be created there.
    """
    existing = folder
    while not (existing.exists() or existing.is_symlink()):
        existing = existing.parent
    if not existing.is_dir():
        raise TuningError(f"cannot write in {folder}: {existing} is not a folder")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise TuningError(
            f"cannot write in {existing}: {error.strerror or error}; {ANOTHER_PLACE}"
        ) from error
