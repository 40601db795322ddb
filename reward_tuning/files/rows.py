"""One strict reader for files of rows: tables, JSON lines, JSON lists, lines of text.

It serves prompt files, lists of clips to score, to replay and to train on. A row that cannot be
read as it was meant is refused with its line: too many or too few cells, a quote that is never
closed, a repeated column, or a key that is nearly the name of a column. `null` means "not given" in
every kind of file.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from reward_tuning.errors import TuningError, first_lines
from reward_tuning.files.clean_text import MAX_SHOWN, cleaned
from reward_tuning.files.columns import BadRow, Row, RowFormat
from reward_tuning.files.file_names import file_name_fault
from reward_tuning.files.json_rows import bare_row, json_lines, json_list
from reward_tuning.files.table_rows import table_rows

T = TypeVar("T")

TABLES = (".csv", ".tsv")
_LINES = (".jsonl", ".ndjson")
_TEXT = ".txt"

MAX_REPORTED, MIN_REPORTED = 10, 3  # bad rows in one message
MAX_CHARACTERS = 600  # of the rows after the first `MIN_REPORTED`: a terminal of about 8 lines
MAX_ROW = 300  # characters of one bad row


def read_rows(path: Path, row_format: RowFormat, make: Callable[[Row], T]) -> list[T]:
    """Read a file of rows, in its order.

    Args:
        path: `.csv` or `.tsv` with a header, cells separated by commas, semicolons, tabs or bars;
            `.jsonl` or `.ndjson` with an object a line; `.json` with a list of objects (or an
            object a line). With `bare_text`, also `.txt` with a text a line, in which a line that
            begins with # is a comment, and texts in a `.json` list. UTF-8. Blank rows are skipped.
        row_format: Columns of the file.
        make: Turns a row, which has all required columns, into the result; raises `TuningError`
            for a wrong value.

    Raises:
        TuningError: The file cannot be read, has another suffix, or has no row; or rows are wrong,
            each reported with its line.
    """
    found: list[T] = []
    bad: list[str] = []
    for row in _rows(path, row_format):
        if isinstance(row, BadRow):
            bad.append(f"{row.place}: {row.fault}")
            continue
        try:
            found.append(make(row))
        except TuningError as error:
            bad.append(f"{row.place}: {error}")
    if bad:
        raise TuningError(bad_rows_message(f"{row_format.what} {path}:", bad))
    if not found:
        raise TuningError(f"{row_format.what} {path} {row_format.empty}")
    return found


def bad_rows_message(head: str, bad: Iterable[str]) -> str:
    """Return a message that lists bad rows: as many as fit, and the number of the others."""
    rows = [row if len(row) <= MAX_ROW else row[:MAX_ROW] + " ..." for row in bad]
    reported, characters = 0, 0
    while reported < min(len(rows), MAX_REPORTED):
        characters += len(rows[reported])
        if reported >= MIN_REPORTED and characters > MAX_CHARACTERS:
            break
        reported += 1
    return "\n".join([head, *(f"  {line}" for line in first_lines(rows, reported))])


def _rows(path: Path, row_format: RowFormat) -> Iterator[Row | BadRow]:
    suffix = path.suffix.lower()
    if suffix not in row_format.suffixes:
        raise TuningError(
            f"{row_format.what} {path}: suffix {path.suffix or '(none)'}; allowed: "
            f"{', '.join(row_format.suffixes)}"
        )
    text = _decoded(path, row_format)
    if suffix in TABLES:
        yield from table_rows(text, suffix, row_format)
    elif suffix == _TEXT:
        for number, line in enumerate(io.StringIO(text, newline=None), 1):
            if (prompt := cleaned(line)) and not prompt.startswith("#"):
                yield bare_row(f"line {number}", prompt, row_format)
    elif suffix in _LINES:
        yield from json_lines(text, row_format)
    else:
        yield from json_list(text, path, row_format)


def _decoded(path: Path, row_format: RowFormat) -> str:
    if fault := file_name_fault(str(path)):
        raise TuningError(f"{row_format.what} {str(path)[:MAX_SHOWN]!a}: {fault}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TuningError(f"{row_format.what} {path}: cannot be read ({error.strerror})") from error
    try:
        # Also between the lines: files that each begin with a byte-order mark may have been joined.
        return data.decode("utf-8").replace("\ufeff", "")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        utf16 = " (it seems to be UTF-16)" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise TuningError(
            f"{row_format.what} {path}, line {line}: not UTF-8 text{utf16}; save the file as UTF-8"
        ) from error
