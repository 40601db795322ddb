"""Rows of JSON files: an object a line, or a list of objects."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reward_tuning.errors import TuningError
from reward_tuning.files.clean_text import cleaned, short_json, text_fault
from reward_tuning.files.columns import PROMPT, BadRow, Row, RowFormat, named_row

_SECOND_DOCUMENT = "Extra data"  # what Python's JSON reader reports after the first document


def json_lines(text: str, row_format: RowFormat) -> Iterator[Row | BadRow]:
    """Read an object a line; blank lines are skipped.

    Args:
        text: Content of the file.
        row_format: Columns of the file.
    """
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if not cleaned(line):
            continue
        place = f"line {number}"
        try:
            entry = _parsed(line)
        except TuningError as error:
            yield BadRow(place, str(error))
        else:
            yield _row(place, entry, row_format)


def json_list(text: str, path: Path, row_format: RowFormat) -> Iterator[Row | BadRow]:
    """Read a list of objects, and of texts where the format has `bare_text`; or an object a line.

    Args:
        text: Content of the file.
        path: Path of the file, for messages.
        row_format: Columns of the file.

    Raises:
        TuningError: The text is not valid JSON, or not a list.
    """
    if not cleaned(text):
        return
    try:
        entries = _parsed(text, lines=True)
    except TuningError as error:
        if text.lstrip().startswith("{") and _SECOND_DOCUMENT in str(error):
            yield from json_lines(text, row_format)
            return
        raise TuningError(f"{row_format.what} {path}: {error}") from error
    if isinstance(entries, dict):
        entries = [entries]  # an object a line, of one line
    if not isinstance(entries, list):
        raise TuningError(
            f"{row_format.what} {path} is not a list of rows; expected rows such as "
            f"{row_format.example}"
        )
    for number, entry in enumerate(entries, 1):
        place = f"row {number}"
        if isinstance(entry, str) and row_format.bare_text:
            yield bare_row(place, entry, row_format)
        else:
            yield _row(place, entry, row_format)


def bare_row(place: str, text: str, row_format: RowFormat) -> Row | BadRow:
    """Read a text alone as a row with a prompt."""
    name = PROMPT.names[0]
    if fault := text_fault(name, text):
        return BadRow(place, fault)
    return named_row(place, {name: text}, row_format)


class _Repeating(dict[str, Any]):
    """An object in which a key appears twice; `repeated` is the first such key."""

    repeated = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    keys = [key for key, _ in pairs]
    damaged = _Repeating(found)
    damaged.repeated = next(key for key in keys if keys.count(key) > 1)
    return damaged


def _parsed(text: str, *, lines: bool = False) -> Any:
    """Parse a JSON document; a message names the line where the document has `lines`.

    Raises:
        TuningError: It is not valid JSON, nested too deeply, or has a number of too many digits.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if lines else ""
        place = f"{line}column {error.colno}"
        raise TuningError(f"not valid JSON: {error.msg} at {place}") from error
    except RecursionError as error:
        raise TuningError("not valid JSON: too deeply nested") from error
    except ValueError as error:  # Python reads no whole number of more than 4,300 digits
        raise TuningError("not valid JSON: a number has too many digits") from error


def _row(place: str, entry: Any, row_format: RowFormat) -> Row | BadRow:
    if not isinstance(entry, dict):
        expected = f"expected an object such as {row_format.example}"
        return BadRow(place, f"got {short_json(entry)}; {expected}")
    if isinstance(entry, _Repeating) and entry.repeated in row_format.names:
        return BadRow(place, f"the key `{entry.repeated}` appears twice; remove one")
    return named_row(place, entry, row_format)
