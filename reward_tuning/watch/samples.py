"""The sample clips of a run: which there are, and which file of theirs may be served."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from reward_tuning.files.json_text import parsed_json
from reward_tuning.report.pages import readable

MEDIA = {".mp4": "video/mp4", ".webm": "video/webm", ".gif": "image/gif", ".png": "image/png"}
STEP = re.compile(r"step-(\d{6,9})")
FILE = re.compile(r"\d{1,4}\.(?:mp4|webm|gif|png)")
MOST_PROMPT = 2000
"""Characters of a prompt; the page is not the place to read a novel."""


class Samples:
    """The clips in `samples/` of a run, listed again where a folder has changed.

    Args:
        root: The run folder.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / "samples"
        self._of_step: dict[str, tuple[int, list[str]]] = {}

    def steps(self) -> dict[int, list[str]]:
        """Return the file names of each step that has clips."""
        found: dict[int, list[str]] = {}
        for name in _names(self._folder):
            matched = STEP.fullmatch(name)
            if matched and (files := self._files(name)):
                found[int(matched[1])] = files
        return dict(sorted(found.items()))

    def _files(self, name: str) -> list[str]:
        folder = self._folder / name
        try:
            changed = folder.stat().st_mtime_ns
        except OSError:  # removed since it was listed
            return []
        known = self._of_step.get(name)
        if known is None or known[0] != changed:
            files = sorted(file for file in _names(folder) if FILE.fullmatch(file))
            known = self._of_step[name] = (changed, files)
        return known[1]

    def prompts(self) -> dict[str, str]:
        """Return the prompt of each file name; empty where the run has written none yet."""
        try:
            found: Any = parsed_json((self._folder / "prompts.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
        return {
            str(row["file"]): readable(row["prompt"])[:MOST_PROMPT]
            for row in rows
            if isinstance(row.get("prompt"), str) and FILE.fullmatch(str(row.get("file")))
        }

    def file(self, step: str, name: str) -> Path | None:
        """Return the path of a clip that may be served; None for anything else.

        Args:
            step: Name of the step's folder, from an address.
            name: File name, from an address.
        """
        if not (STEP.fullmatch(step) and FILE.fullmatch(name)):
            return None
        path = self._folder / step / name
        root = self._folder.parent.resolve()
        # A link inside the run's own folder is fine; one that leads out of it is not.
        return path if path.is_file() and path.resolve().is_relative_to(root) else None


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:  # not there yet
        return []
