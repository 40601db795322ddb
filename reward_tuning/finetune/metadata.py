"""The list of a user's clips, with the published trainer's keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from reward_tuning.errors import TuningError
from reward_tuning.files.pictures import PICTURES
from reward_tuning.files.rows import (
    RowKind,
    cleaned,
    named_file,
    read_rows,
    shown,
    text_fault,
)

ClipKind = Literal["video", "image"]
FILE, TEXT, KIND, CONTROL = "file_path", "text", "type", "control_file_path"
CLIPS = RowKind(
    what="data.metadata",
    keys=(FILE, TEXT, KIND, CONTROL),
    needed=(FILE, TEXT),
    wanted=f'an object is wanted: {{"{FILE}": "clip.mp4", "{TEXT}": "..."}}',
    empty=f"names no clip; give each a row with {FILE} and {TEXT}",
)


@dataclass(frozen=True)
class ClipRow:
    """One row of the list.

    Attributes:
        file: Of the clip or picture, absolute.
        text: What it shows; may be empty.
        kind: `video` or `image`.
        control: A control clip or picture, or a pose file (.txt), absolute; None for none.
        line: Place in the list, counted from 1.
    """

    file: Path
    text: str
    kind: ClipKind
    control: Path | None = None
    line: int = 0


def read_metadata(path: str | Path, folder: str | Path | None = None) -> list[ClipRow]:
    """Read a list of clips, in its order.

    Args:
        path: As `row_files.read_rows`, but no `.txt`. Keys: `file_path`, `text` (which may be
            empty), `type` (`video` or `image`; without it the file's ending tells),
            `control_file_path`. Others, such as `width` and `height`, are ignored unless they look
            like a misspelling of these.
        folder: Where relative paths start; None is the list's own folder.

    Raises:
        TuningError: The list cannot be read, is empty, or rows are bad, each told with its number.
            Whether the files it names can be read is another matter: `survey.survey`.
    """
    path = Path(path)
    start = (path.parent if folder is None else Path(folder)).resolve()
    rows = read_rows(path, CLIPS, lambda row: _row(row.values, start))
    return [replace(row, line=line) for line, row in enumerate(rows, 1)]


def _row(row: Mapping[str, Any], folder: Path) -> ClipRow:
    """A clip.

    Raises:
        TuningError: What is wrong with the row.
    """
    file, text = named_file(FILE, row[FILE], folder), row[TEXT]
    if not isinstance(text, str):
        raise TuningError(f"{TEXT} must be a text; got {shown(text)}")
    if cleaned(text) and (wrong := text_fault(TEXT, text)):
        raise TuningError(wrong)
    kind = row.get(KIND) or ("image" if file.suffix.lower() in PICTURES else "video")
    kind = cleaned(kind) if isinstance(kind, str) else kind
    if kind not in ("video", "image"):
        raise TuningError(f"{KIND} is {shown(kind)}; allowed: video, image")
    control = row.get(CONTROL) or None
    return ClipRow(
        file,
        cleaned(text),
        "image" if kind == "image" else "video",
        None if control is None else named_file(CONTROL, control, folder),
    )
