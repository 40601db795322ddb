"""Columns of the files of rows: their names, defined once, and a row read under them.

A prompt is called `prompt`, `text` or `caption`, a clip `video`, `file` or `file_path`, in every
file that has one. A further name for either goes into the tuples below and nowhere else.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reward_tuning.errors import TuningError
from reward_tuning.files.clean_text import (
    MAX_SHOWN,
    cleaned,
    lone_surrogate,
    short_json,
    text_fault,
)
from reward_tuning.files.file_names import file_name_fault

SIMILARITY = 0.75  # of `difflib`: catches contol_file_path, reward-prompt, promt
_FILE_SUFFIX = re.compile(
    r"_(path|file|filename|file_path|video|image|clip|picture|motion)$",
)
_COPY_SUFFIX = re.compile(r"[._ ]\d+$")  # pandas renames a repeated column `prompt` to `prompt.1`


@dataclass(frozen=True)
class Column:
    """A column under each of its names.

    Attributes:
        names: Accepted names. The first is the key in `Row.values`.
        required: Each row has it.
        preferred: Name whose value counts in a row that gives several; the others are then ignored,
            like any further column. Empty for the first name.
        may_be_empty: An empty text is a value, not a missing one.
    """

    names: tuple[str, ...]
    required: bool = False
    preferred: str = ""
    may_be_empty: bool = False

    @property
    def main(self) -> str:
        """The name that the file's own format uses."""
        return self.preferred or self.names[0]

    def read_names(self, given: Collection[str]) -> tuple[str, ...]:
        """Return the names that count in a row that gives these."""
        return (self.main,) if self.main in given else self.names

    @property
    def quoted(self) -> str:
        """The names for a message."""
        first, *others = (f"`{name}`" for name in self.names)
        return f"{first} (or {', '.join(others)})" if others else first


PROMPT = Column(("prompt", "text", "caption"), required=True)
REWARD_PROMPT = Column(("reward_prompt",))
CATEGORY = Column(("category",))
VIDEO = Column(("video", "file", "file_path"), required=True)


@dataclass(frozen=True)
class RowFormat:
    """The columns of a file of rows, and how messages describe the file.

    Attributes:
        what: Name of the file in messages, such as `prompt file`.
        columns: Known columns. A key that looks like a misspelling of one is refused; other keys
            are ignored.
        example: A valid row, for messages.
        empty: What a message says of a file without rows.
        bare_text: A text alone is a row with a prompt: a line of a .txt, an entry of a .json list.
    """

    what: str
    columns: tuple[Column, ...]
    example: str
    empty: str
    bare_text: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of every column."""
        return tuple(name for column in self.columns for name in column.names)

    @property
    def required(self) -> tuple[Column, ...]:
        """The columns that each row has."""
        return tuple(column for column in self.columns if column.required)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of the files that can hold such rows, in the order of a message."""
        if self.bare_text:
            return (".txt", ".jsonl", ".csv", ".tsv", ".ndjson", ".json")
        return (".json", ".csv", ".tsv", ".jsonl", ".ndjson")


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        place: Where it is in the file, such as `line 3`.
        values: First name of a column to its value; columns that are null or missing are left out.
        names: First name of a column to the name that this row uses.
    """

    place: str
    values: Mapping[str, Any]
    names: Mapping[str, str]

    def text(self, column: Column) -> str:
        """Return the cleaned text of a column that the row has.

        Raises:
            TuningError: It is not a text, or has characters that no tokenizer reads.
        """
        name, value = self.names[column.names[0]], self.values[column.names[0]]
        if column.may_be_empty and isinstance(value, str) and not cleaned(value):
            return ""
        if fault := text_fault(name, value):
            raise TuningError(fault)
        return cleaned(value)

    def path(self, column: Column, folder: Path) -> Path:
        """Return the file that a column names; a relative path starts from the folder.

        Raises:
            TuningError: It is not a text, or no file can have such a name.
        """
        name, value = self.names[column.names[0]], self.values[column.names[0]]
        if not (isinstance(value, str) and cleaned(value)):
            raise TuningError(f"{name} is {short_json(value)}; expected the path of a file")
        path = cleaned(value)
        if fault := lone_surrogate(path) or file_name_fault(path):
            raise TuningError(f"{name} {path[:MAX_SHOWN]!a}: {fault}")
        try:
            return folder / Path(path).expanduser()
        except RuntimeError as error:  # ~name without such a user
            raise TuningError(f"{name} {path[:MAX_SHOWN]!a}: {error}") from error


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be read.

    Attributes:
        place: Where it is in the file, such as `line 3`.
        fault: What is wrong with it.
    """

    place: str
    fault: str


def named_row(place: str, raw: Mapping[str, Any], row_format: RowFormat) -> Row | BadRow:
    """Read a raw row under the columns of a format.

    Args:
        place: Where it is in the file.
        raw: Key of the file to value; None for null.
        row_format: Columns of the file.
    """
    if fault := misspelling(raw, row_format):
        return BadRow(place, fault)
    values, names = {}, {}
    for column in row_format.columns:
        given = [name for name in column.names if raw.get(name) is not None]
        given = [name for name in given if name in column.read_names(given)]
        if len(given) > 1:
            return BadRow(place, f"`{given[0]}` and `{given[1]}` mean the same; remove one")
        if given:
            names[column.names[0]] = given[0]
            values[column.names[0]] = raw[given[0]]
        elif column.required:
            null = [name for name in column.names if name in raw]
            if null:
                return BadRow(place, f"the key `{null[0]}` is null")
            return BadRow(place, f"the key {column.quoted} is missing")
    return Row(place, values, names)


def misspelling(keys: Iterable[str], row_format: RowFormat) -> str | None:
    """Report a key that looks like a misspelt column, which would be ignored without a word.

    A key of a column that the row has under a right name is reported only if it differs from that
    name in case, separators or a trailing number alone.
    """
    keys = list(keys)
    known = row_format.names
    column_of = {name: column for column in row_format.columns for name in column.names}
    stems = {_FILE_SUFFIX.sub("", name): name for name in reversed(known)}
    for key in keys:
        if key in known:
            continue
        plain = re.sub(r"[\s-]+", "_", key.strip().lower())
        close = difflib.get_close_matches(plain, known, 1, SIMILARITY)
        near = close[0] if close else stems.get(_FILE_SUFFIX.sub("", plain))
        shown = key[:MAX_SHOWN]
        if near is not None and not any(name in keys for name in column_of[near].names):
            return f"unknown key `{shown}`; did you mean `{near}`?"
        same = _COPY_SUFFIX.sub("", plain)
        if same in keys and same in known and same in column_of[same].read_names(keys):
            return f"the keys `{same}` and `{shown}` mean the same; remove one"
    return None
