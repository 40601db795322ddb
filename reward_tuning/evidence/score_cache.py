"""Values measured on clips, on the disk: one file a clip, each value under what measured it.

`cache/scores/KEY.json` belongs to the clip of that key (`clip_cache`). A value's name contains a
hash of the judge's files and options and of the text that it read, so another judge adds values and
changes none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reward_tuning.evidence.clip_cache import KEPT
from reward_tuning.files.atomic_write import atomic_write
from reward_tuning.files.hashes import text_sha256
from reward_tuning.files.json_text import parsed_json
from reward_tuning.progress import ProgressEvent, ProgressFn, silent

Value = float | list[float]


class ScoreCache:
    """The values of clips.

    Args:
        folder: Folder of the files, created on the first write.
        progress: Receives a note on each damaged file.
    """

    def __init__(self, folder: Path, progress: ProgressFn = silent) -> None:
        self.folder = folder
        self._progress = progress
        self._read: dict[str, dict[str, Value]] = {}

    def path(self, clip: str) -> Path:
        """Return the file of a clip's values."""
        return self.folder / f"{clip}.json"

    def values(self, clip: str) -> Mapping[str, Value]:
        """Return the values of a clip by name; a number that is not finite is NaN."""
        if clip not in self._read:
            self._read[clip] = self._load(clip)
        return self._read[clip]

    def add(self, clip: str, values: Mapping[str, Value]) -> None:
        """Write further values of a clip, whole or not at all.

        Raises:
            TuningError: The disk is full.
        """
        found = dict(self.values(clip)) | dict(values)
        plain = json.dumps({name: _plain(value) for name, value in sorted(found.items())})
        text = json.dumps({"clip": clip, "sha256": text_sha256(plain), "values": plain})
        atomic_write(self.path(clip), text.encode(), advice=KEPT)
        self._read[clip] = found

    def _load(self, clip: str) -> dict[str, Value]:
        path = self.path(clip)
        try:
            record: Any = parsed_json(path.read_text(encoding="utf-8"))
            if record["clip"] != clip or record["sha256"] != text_sha256(record["values"]):
                raise ValueError("its content does not fit its checksum")
            values: dict[str, Any] = dict(parsed_json(record["values"]))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            note = f"score cache: {path} is damaged ({error}); measuring that clip again"
            self._progress(ProgressEvent("score cache", note=note))
            return {}
        return {name: math.nan if value is None else value for name, value in values.items()}


def _plain(value: Value) -> Value | None:
    if isinstance(value, list):
        return value
    return value if math.isfinite(value) else None
