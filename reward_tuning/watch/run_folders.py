"""The run folders in a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from reward_tuning.errors import TuningError
from reward_tuning.runs.status import STATUS_FILE

MARKS = ("recipe.yaml", STATUS_FILE)
DEPTH = 3
"""Folders between the one that is watched and a run: `runs/study/method/seed` is still found."""
MOST_RUNS, MOST_FOLDERS = 60, 4000


def is_run(folder: Path) -> bool:
    """Return whether a run has begun, or loads, in a folder."""
    return any((folder / name).is_file() for name in MARKS)


def run_folders(root: Path) -> list[Path]:
    """List the runs in a folder, by name; the folder itself alone where it is one.

    Links to folders are not followed: what they lead to was not given to be shown.

    Args:
        root: A folder.

    Returns:
        At most `MOST_RUNS`: those that changed last.
    """
    if is_run(root):
        return [root]
    found = list(_search(root))
    found.sort(key=_changed, reverse=True)
    return sorted(found[:MOST_RUNS])


def _search(root: Path) -> Iterator[Path]:
    waiting, seen = [(root, 0)], 0
    while waiting and seen < MOST_FOLDERS:
        folder, depth = waiting.pop(0)
        seen += 1
        try:
            with os.scandir(folder) as entries:
                inside = [
                    Path(entry.path)
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
                ]
        except OSError:  # not ours to read, or gone since it was listed: nothing to watch there
            continue
        for path in inside:
            if is_run(path):
                yield path
            elif depth < DEPTH:
                waiting.append((path, depth + 1))


def _changed(folder: Path) -> float:
    times = []
    for name in (*MARKS, "metrics.jsonl"):
        try:
            times.append((folder / name).stat().st_mtime)
        except OSError:
            continue
    return max(times, default=0.0)


def run_id(root: Path, folder: Path) -> str:
    """Return the name of a run in addresses, which tells nothing about where it lies."""
    inside = os.fsencode(folder.relative_to(root))
    return hashlib.sha256(inside).hexdigest()[:12]


def checked_root(folder: Path) -> Path:
    """Return the absolute path of a folder to watch.

    Raises:
        TuningError: It does not exist, or is no folder.
    """
    found = folder.expanduser()
    if not found.is_dir():
        what = "is not a folder" if found.exists() else "does not exist"
        raise TuningError(
            f"{folder} {what}; give a run folder (the `output` of a run), or a folder of several"
        )
    return found.resolve()
