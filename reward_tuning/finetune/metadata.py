"""The list of a user's clips: a JSON list or a CSV, with the published trainer's keys."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reward_tuning.errors import TuningError
from reward_tuning.frame_files import PICTURES

ClipKind = Literal["video", "image"]
FILE, TEXT, KIND, CONTROL = "file_path", "text", "type", "control_file_path"
MEASURES = ("width", "height")
KEYS = (FILE, TEXT, KIND, *MEASURES, CONTROL)
MOST_TOLD = 10  # bad rows told in one message


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
        path: `.json` with a list of objects, or `.csv` with a header. Keys: `file_path`, `text`,
            `type` (`video` or `image`; without it the file's ending tells), `control_file_path`.
            `width` and `height` may be there and are not needed: sizes are read from the files.
            Other keys are ignored.
        folder: Where relative paths start; None is the list's own folder.

    Raises:
        TuningError: The list cannot be read, is empty, or rows are bad, each told with its number.
            Whether the files it names can be read is another matter: `survey.survey`.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TuningError(f"data.metadata: {path} cannot be read ({error})") from error
    start = path.parent if folder is None else Path(folder)
    rows: list[ClipRow] = []
    bad: list[str] = []
    for line, entry in _entries(path, text):
        found = _row(entry, start.resolve(), line)
        if isinstance(found, ClipRow):
            rows.append(found)
        else:
            bad.append(f"  row {line}: {found}")
    if bad:
        more = [f"  and {len(bad) - MOST_TOLD} more"] if len(bad) > MOST_TOLD else []
        raise TuningError("\n".join([f"data.metadata {path}:", *bad[:MOST_TOLD], *more]))
    if not rows:
        raise TuningError(
            f"data.metadata: {path} names no clip; give each a row with {FILE} and {TEXT}"
        )
    return rows


def _entries(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    if path.suffix.lower() == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""))
        missing = [key for key in (FILE, TEXT) if key not in (reader.fieldnames or ())]
        if missing:
            raise TuningError(
                f"data.metadata: {path} has no column {', '.join(missing)} (its header: "
                f"{', '.join(reader.fieldnames or ()) or 'empty'}); allowed: {', '.join(KEYS)}"
            )
        yield from enumerate(reader, 1)
    elif path.suffix.lower() == ".json":
        try:
            entries = json.loads(text)
        except json.JSONDecodeError as error:
            raise TuningError(
                f"data.metadata: {path} is not valid JSON (line {error.lineno}: {error.msg})"
            ) from error
        if not isinstance(entries, list):
            raise TuningError(f'data.metadata: {path} must be a list, [{{"{FILE}": ...}}, ...]')
        yield from enumerate(entries, 1)
    else:
        raise TuningError(
            f"data.metadata: {path} ends in {path.suffix or 'nothing'}; allowed: .json, .csv"
        )


def _row(entry: Any, folder: Path, line: int) -> ClipRow | str:
    """A row, or what is wrong with it."""
    if not isinstance(entry, Mapping):
        return f"got {json.dumps(entry, ensure_ascii=False)[:60]}; an object is wanted"
    for key in (FILE, TEXT):
        if not isinstance(entry.get(key), str):
            return f"the key `{key}` is missing" if key not in entry else f"{key} must be a text"
    if not entry[FILE].strip():
        return f"{FILE} is empty"
    file = folder / Path(entry[FILE].strip()).expanduser()
    kind = entry.get(KIND) or ("image" if file.suffix.lower() in PICTURES else "video")
    if kind not in ("video", "image"):
        return f"{KIND} is {kind!r}; allowed: video, image"
    control = entry.get(CONTROL) or None
    if control is not None and not isinstance(control, str):
        return f"{CONTROL} must be a text"
    return ClipRow(
        file,
        entry[TEXT].strip(),
        "image" if kind == "image" else "video",
        None if control is None else folder / Path(control.strip()).expanduser(),
        line,
    )
