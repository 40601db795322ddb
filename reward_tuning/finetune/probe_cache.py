"""Lengths and sizes of a training set's files, kept next to the posteriors for the next start.

Counting the frames of a video decodes it, which takes hours for a large set. A file with the same
path, size and modification time is not decoded again.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reward_tuning.files.atomic_write import ANOTHER_PLACE, atomic_write
from reward_tuning.finetune.metadata import ClipKind
from reward_tuning.finetune.video_files import ClipInfo, probe

logger = logging.getLogger(__name__)

FILE = "files.json"
VERSION = 2
"""Version 1 counted frames by time and accepted truncated files, so its counts are wrong."""
UNSAVED = 1000
"""Probes, or a tenth of all, that a killed start may have to repeat: each save writes the whole
file, so more frequent ones would dominate the time of a large set."""


class ProbeCache:
    """Probe files, each once as long as it does not change; failures are not kept.

    Args:
        folder: Folder of `files.json`, created when first written to; None keeps nothing.

    Attributes:
        probes: Number of files decoded.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self._path = None if folder is None else Path(folder) / FILE
        self._found = {} if self._path is None else _read(self._path)
        self._unsaved = 0
        self.probes = 0

    def __call__(self, path: Path, kind: ClipKind) -> ClipInfo:
        """Return frames and size of a file; see `probe`.

        Raises:
            TuningError: The file is missing, damaged, or not of this kind.
        """
        key = f"{kind} {path}"
        state = _state(path)
        kept = self._found.get(key)
        if state is not None and kept is not None and kept["state"] == state:
            return ClipInfo(**kept["info"])
        self.probes += 1
        info = probe(path, kind)
        self._found[key] = {"state": state, "info": asdict(info)}
        self._unsaved += 1
        return info

    def save_now_and_then(self) -> None:
        """Save where a killed start would otherwise have to repeat many probes.

        Raises:
            TuningError: The folder cannot be written.
        """
        if self._unsaved >= max(UNSAVED, len(self._found) // 10):
            self.save()

    def save(self) -> None:
        """Write what is not written yet.

        Raises:
            TuningError: The folder cannot be written.
        """
        if self._path is None or not self._unsaved:
            return
        text = json.dumps({"version": VERSION, "files": self._found}, ensure_ascii=False)
        atomic_write(self._path, text.encode(), advice=ANOTHER_PLACE)
        self._unsaved = 0


def _state(path: Path) -> list[int] | None:
    """Return size and modification time in nanoseconds; None where there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None  # the probe reports what is wrong
    return [found.st_size, found.st_mtime_ns]


def _read(path: Path) -> dict[str, Any]:
    # A cache is never worth refusing a run: a bad one is reported and built again.
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        logger.warning("%s is damaged (%s); checking every file again", path, error)
        return {}
    if not isinstance(kept, dict) or kept.get("version") != VERSION:
        logger.warning("%s has another version; checking every file again", path)
        return {}
    files: dict[str, Any] = kept["files"]
    return files
