"""The list of a user's clips, with the published trainer's keys."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from reward_tuning.errors import TuningError
from reward_tuning.files.clean_text import cleaned, short_json
from reward_tuning.files.columns import PROMPT, VIDEO, Column, Row, RowFormat
from reward_tuning.files.pictures import PICTURE_SUFFIXES
from reward_tuning.files.rows import read_rows

ClipKind = Literal["video", "image"]
FILE = replace(VIDEO, preferred="file_path")
TEXT = replace(PROMPT, preferred="text", may_be_empty=True)
KIND = Column(("type",))
CONTROL = Column(("control_file_path",))
METADATA_ROWS = RowFormat(
    what="data.metadata",
    columns=(FILE, TEXT, KIND, CONTROL),
    example='{"file_path": "clip.mp4", "text": "..."}',
    empty="names no clip; give each a row with file_path and text",
)


@dataclass(frozen=True)
class ClipRow:
    """One row of the list.

    Attributes:
        file: Absolute path of the clip or picture.
        text: Caption; may be empty.
        kind: `video` or `image`.
        control: Absolute path of a control clip, control picture or pose file (.txt); None for
            none.
        line: Position in the list, counted from 1.
    """

    file: Path
    text: str
    kind: ClipKind
    control: Path | None = None
    line: int = 0


def read_metadata(path: str | Path, folder: str | Path | None = None) -> list[ClipRow]:
    """Read a list of clips, in its order. Files are not opened: `survey.survey` does that.

    Args:
        path: File in a format of `rows.read_rows`. Columns: `file_path` (or `file`, `video`),
            `text` (or `prompt`, `caption`), which may be empty, `type` (`video` or `image`; without
            it the suffix of the file decides) and `control_file_path`. Other columns, such as
            `width` and `height`, are ignored unless they look like a misspelling of these.
        folder: Folder of relative paths; None is the list's own.

    Raises:
        TuningError: The list cannot be read or is empty, or rows are bad, each reported with its
            number.
    """
    path = Path(path)
    start = (path.parent if folder is None else Path(folder)).resolve()
    rows = read_rows(path, METADATA_ROWS, lambda row: _clip_row(row, start))
    return [replace(row, line=line) for line, row in enumerate(rows, 1)]


def _clip_row(row: Row, folder: Path) -> ClipRow:
    """Return the clip of a row.

    Raises:
        TuningError: A value of the row is wrong.
    """
    file, text = row.path(FILE, folder), row.text(TEXT)
    kind = row.values.get("type") or (
        "image" if file.suffix.lower() in PICTURE_SUFFIXES else "video"
    )
    kind = cleaned(kind) if isinstance(kind, str) else kind
    if kind not in ("video", "image"):
        raise TuningError(f"type is {short_json(kind)}; allowed: video, image")
    control = row.path(CONTROL, folder) if row.values.get("control_file_path") else None
    return ClipRow(file, text, "image" if kind == "image" else "video", control)
