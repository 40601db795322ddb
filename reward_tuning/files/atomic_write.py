"""Files that are there whole, or as they were before."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

from reward_tuning.errors import TuningError

SPACE = "free some space"
GO_ON = f"{SPACE}, then go on with `reward-tuning resume` on the run folder"
ANOTHER_PLACE = f"{SPACE} or choose another place"
ANOTHER_OUTPUT = f"{ANOTHER_PLACE} with output=DIR"
EXPORT_AGAIN = f"{ANOTHER_PLACE}, and export again"
REMEDIES = {
    errno.EACCES: "make it writable",
    errno.EPERM: "make it writable",
    errno.EROFS: "make it writable",
    errno.ENOENT: "look where its folder has gone",
    errno.ENOTDIR: "look what stands in the place of its folder",
    errno.EIO: "look at the disk",
}
"""What helps against other faults than a full disk."""


def atomic_write(path: Path, content: bytes, *, advice: str = GO_ON) -> None:
    """Write a file under a temporary name, flush it to the disk and rename it.

    Args:
        path: Where; missing folders are made.
        content: All of it.
        advice: The next step after a failure.

    Raises:
        TuningError: It cannot be written; what was there before is unchanged.
    """
    temporary = temporary_beside(path)
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
        with contextlib.suppress(OSError):  # a folder that is a file, told above
            temporary.unlink(missing_ok=True)


def temporary_beside(path: Path, kind: str = "tmp") -> Path:
    """A hidden name of this process in the same folder."""
    return path.with_name(f".{path.name}.{kind}-{os.getpid()}")


def not_written(path: Path, error: Exception, *, advice: str = GO_ON) -> TuningError:
    """The error of a full disk, or of another fault, with the advice that fits it."""
    reason = getattr(error, "strerror", None) or str(error)
    number = getattr(error, "errno", None)
    advice = advice.replace(SPACE, REMEDIES.get(number or 0, SPACE), 1)
    return TuningError(
        f"{path} could not be written: {reason}. What was there before is unchanged; {advice}"
    )


def check_place(folder: Path) -> None:
    """Look whether files can be made in a folder, which may not be there yet; nothing is left.

    For what comes before hours of work, at whose end the file is written.

    Raises:
        TuningError: They cannot.
    """
    there = folder
    while not (there.exists() or there.is_symlink()):
        there = there.parent
    if not there.is_dir():
        raise TuningError(f"nothing can be written in {folder}: {there} is no folder")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise TuningError(
            f"nothing can be written in {there}: {error.strerror or error}; {ANOTHER_PLACE}"
        ) from error
