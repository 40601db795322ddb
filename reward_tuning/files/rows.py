"""Files of rows as people have them: tables, JSON lines, JSON lists, lines of text.

One strict reader for prompts, for clips and their prompts, and for lists of clips to train on. What
it cannot read as it was meant is refused with its line: a row of too many or too few cells, a quote
that is never closed, a column that stands twice or whose name is nearly one of ours. `null` is "not
given" in every kind of file.
"""

from __future__ import annotations

import difflib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from reward_tuning.errors import TuningError
from reward_tuning.files.file_names import file_name_fault

T = TypeVar("T")

TABLES = (".csv", ".tsv")
LINES = (".jsonl", ".ndjson")
LIST = ".json"
TEXT = ".txt"

MAX_REPORTED, LEAST_TOLD = 10, 3  # bad rows told in one message
MOST_LETTERS = 600  # of these rows, as far as they are more than the least
LONGEST_ROW, LONGEST_VALUE = 300, 60
NEAR = 0.75  # of `difflib`: contol_file_path, reward-prompt, promt
FILE_WORDS = re.compile(r"_(path|file|filename|file_path|video|image|clip|picture|motion)$")
COPY = re.compile(r"[._ ]\d+$")  # prompt.1 is what pandas makes of a column that stands twice
INVISIBLE = str.maketrans("\u00a0\u202f\u2028\u2029", "    ", "\ufeff\u200b\u2060\u180e\u00ad")
"""Byte-order marks, spaces of no width and soft hyphens, which copying from web pages and joining
files leave in a text: they mean nothing, and a tokenizer reads them. Spaces that do not break look
like spaces."""
MORE_OBJECTS = "Extra data"  # what Python's reader says of a second document
EDGES = re.compile(r"^[\s\u200c-\u200f\u202a-\u202e]+|[\s\u200c-\u200f\u202a-\u202e]+$")
"""Joiners and marks of direction have a meaning between letters, and none around a text."""


@dataclass(frozen=True)
class RowKind:
    """What the rows of a file are.

    Attributes:
        what: What errors call the file, such as `prompt file`.
        keys: That are known. One that looks like a misspelling of them is refused; others are
            ignored.
        needed: Of these, those that each row has.
        wanted: A row, as errors show it.
        empty: What is told of a file without rows.
        text: The key that a bare text fills: a line of a .txt, a text in a .json list. None where
            a row is more than a text.
    """

    what: str
    keys: tuple[str, ...]
    needed: tuple[str, ...]
    wanted: str
    empty: str
    text: str | None = None

    @property
    def endings(self) -> tuple[str, ...]:
        """Endings of the files that hold such rows."""
        kinds = (".jsonl", ".csv", ".tsv", ".ndjson", LIST)
        return (TEXT, *kinds) if self.text else (LIST, ".csv", ".tsv", ".jsonl", ".ndjson")


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        place: Where it stands, such as `line 3`.
        values: Key to value, without what is not given.
    """

    place: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be read: its place and what is wrong."""

    place: str
    wrong: str


def row_of(place: str, values: Mapping[str, Any] | str) -> Row | BadRow:
    """A row, or one that is bad where its values are a text."""
    return BadRow(place, values) if isinstance(values, str) else Row(place, values)


def read_rows(path: Path, kind: RowKind, make: Callable[[Row], T]) -> list[T]:
    """Read a file of rows, in its order.

    Args:
        path: `.csv` or `.tsv` with a header, cells separated by commas, semicolons, tabs or bars;
            `.jsonl` or `.ndjson` with an object a line; `.json` with a list of objects (or an
            object a line). Where the kind has a `text`, also `.txt` with a text a line, in which a
            line that begins with # is a comment, and texts in a `.json` list. UTF-8. Blank rows are
            skipped.
        kind: Of the rows.
        make: From a row to what is wanted; raises `TuningError` where the row is wrong.
            All that is needed is there, and not null.

    Raises:
        TuningError: The file cannot be read, is of another kind, or holds no row; or rows are
            wrong, each told with its line.
    """
    found: list[T] = []
    bad: list[str] = []
    for row in _rows(path, kind):
        if isinstance(row, BadRow):
            bad.append(f"{row.place}: {row.wrong}")
            continue
        try:
            found.append(make(row))
        except TuningError as error:
            bad.append(f"{row.place}: {error}")
    if bad:
        raise TuningError(told_rows(f"{kind.what} {path}:", bad))
    if not found:
        raise TuningError(f"{kind.what} {path} {kind.empty}")
    return found


def told_rows(head: str, bad: Iterable[str]) -> str:
    """A message of bad rows: as many as can be read at once, and how many more there are."""
    rows = [one if len(one) <= LONGEST_ROW else one[:LONGEST_ROW] + " ..." for one in bad]
    shown, letters = 0, 0
    while shown < min(len(rows), MAX_REPORTED):
        letters += len(rows[shown])
        if shown >= LEAST_TOLD and letters > MOST_LETTERS:
            break
        shown += 1
    more = [f"  and {len(rows) - shown} more"] if len(rows) > shown else []
    return "\n".join([head, *(f"  {row}" for row in rows[:shown]), *more])


def cleaned(text: str) -> str:
    """A text without invisible marks, and without space around it."""
    return EDGES.sub("", text.translate(INVISIBLE))


def shown(value: Any) -> str:
    """A value as JSON, cut to what fits into a message."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "..."


def text_fault(key: str, value: Any) -> str | None:
    """Tell what is wrong with the value of a key that wants a text."""
    if not (isinstance(value, str) and cleaned(value)):
        return f"{key} is {shown(value)}; a text is wanted"
    wrong = lone_surrogate(value)
    if wrong is None and "\0" in value:
        wrong = f"{value[:LONGEST_VALUE]!a} holds a NUL character; remove it"
    return None if wrong is None else f"{key} {wrong}"


def lone_surrogate(text: str) -> str | None:
    """Report a lone surrogate, which no tokenizer reads and no file can hold.

    JSON may hold one as an escape, and the command line where it is not UTF-8.
    """
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        said = f"{text[:LONGEST_VALUE]!a}"
        return f"{said} holds a lone surrogate; give the text as UTF-8"
    return None


def named_file(key: str, value: Any, folder: Path) -> Path:
    """The absolute path of a file that a row names.

    Raises:
        TuningError: It is no text, or no file can have such a name.
    """
    if not isinstance(value, str):
        raise TuningError(f"{key} must be a text; got {shown(value)}")
    name = cleaned(value)
    if not name:
        raise TuningError(f"{key} is empty")
    if fault := lone_surrogate(name) or file_name_fault(name):
        raise TuningError(f"{key} {name[:LONGEST_VALUE]!a}: {fault}")
    try:
        return folder / Path(name).expanduser()
    except RuntimeError as error:  # ~name of nobody
        raise TuningError(f"{key} {name[:LONGEST_VALUE]!a}: {error}") from error


def misspelt(keys: Iterable[str], known: tuple[str, ...]) -> str | None:
    """Tell which key looks like a misspelling of ours; it would change the training in silence.

    Beside the right one a key is wrong where it is the same but for its letters' case or a number.
    """
    keys = list(keys)
    stems = {FILE_WORDS.sub("", one): one for one in reversed(known)}
    for key in keys:
        if key in known:
            continue
        plain = re.sub(r"[\s-]+", "_", key.strip().lower())
        close = difflib.get_close_matches(plain, known, 1, NEAR)
        near = close[0] if close else stems.get(FILE_WORDS.sub("", plain))
        shown_key = key[:LONGEST_VALUE]
        if near is not None and near not in keys:
            return f"unknown key `{shown_key}`; did you mean `{near}`?"
        same = COPY.sub("", plain)
        if same in known and same in keys:
            return f"the keys `{same}` and `{shown_key}` mean the same; remove one"
    return None


def _rows(path: Path, kind: RowKind) -> Iterator[Row | BadRow]:
    from reward_tuning.files.table_rows import table_rows

    ending = path.suffix.lower()
    if ending not in kind.endings:
        raise TuningError(
            f"{kind.what} {path}: ending {path.suffix or '(none)'}; allowed: "
            f"{', '.join(kind.endings)}"
        )
    text = _decoded(path, kind)
    if ending in TABLES:
        yield from table_rows(text, ending, kind)
    elif ending == TEXT:
        assert kind.text is not None
        for number, line in enumerate(io.StringIO(text, newline=None), 1):
            if (one := cleaned(line)) and not one.startswith("#"):
                fault = text_fault(kind.text, one)
                yield row_of(f"line {number}", fault or {kind.text: one})
    elif ending in LINES:
        yield from _json_lines(text, kind)
    else:
        yield from _json_list(text, path, kind)


def _decoded(path: Path, kind: RowKind) -> str:
    if fault := file_name_fault(str(path)):
        raise TuningError(f"{kind.what} {str(path)[:LONGEST_VALUE]!a}: {fault}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TuningError(f"{kind.what} {path}: cannot be read ({error.strerror})") from error
    try:
        # also between the lines, where files were joined that each begin with one
        return data.decode("utf-8").replace("\ufeff", "")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        utf16 = " (UTF-16, it seems)" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        raise TuningError(
            f"{kind.what} {path}, line {line}: not UTF-8 text{utf16}; save the file as UTF-8"
        ) from error


def _json_lines(text: str, kind: RowKind) -> Iterator[Row | BadRow]:
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        if not cleaned(line):
            continue
        try:
            values = _values(parsed_json(line), kind, texts=False)
        except TuningError as error:
            values = str(error)
        yield row_of(f"line {number}", values)


def _json_list(text: str, path: Path, kind: RowKind) -> Iterator[Row | BadRow]:
    if not cleaned(text):
        return
    try:
        entries = parsed_json(text, several=True)
    except TuningError as error:
        if text.lstrip().startswith("{") and MORE_OBJECTS in str(error):
            yield from _json_lines(text, kind)
            return
        raise TuningError(f"{kind.what} {path}: {error}") from error
    if isinstance(entries, dict):
        entries = [entries]  # an object a line, of one line
    if not isinstance(entries, list):
        raise TuningError(f"{kind.what} {path} is not a list of rows; {kind.wanted}")
    for number, entry in enumerate(entries, 1):
        yield row_of(f"row {number}", _values(entry, kind, texts=True))


class _Twice(dict[str, Any]):
    """An object in which a key stands twice."""

    twice = ""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    keys = [key for key, _ in pairs]
    damaged = _Twice(found)
    damaged.twice = next(key for key in keys if keys.count(key) > 1)
    return damaged


def parsed_json(text: str, *, several: bool = False) -> Any:
    """Read JSON.

    Args:
        text: A document.
        several: Whether it has several lines, so that an error names the line.

    Raises:
        TuningError: It is no JSON, is nested too deeply, or holds a number of too many digits.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if several else ""
        place = f"{line}column {error.colno}"
        raise TuningError(f"not valid JSON: {error.msg} at {place}") from error
    except RecursionError as error:
        raise TuningError("not valid JSON: too deeply nested") from error
    except ValueError as error:  # Python reads no whole number of more than 4,300 digits
        raise TuningError("not valid JSON: a number has too many digits") from error


def _values(entry: Any, kind: RowKind, *, texts: bool) -> Mapping[str, Any] | str:
    """What an entry of JSON gives, or what is wrong with it."""
    if texts and isinstance(entry, str) and kind.text is not None:
        return text_fault(kind.text, entry) or {kind.text: entry}
    if not isinstance(entry, dict):
        return f"got {shown(entry)}; {kind.wanted}"
    if isinstance(entry, _Twice) and entry.twice in kind.keys:
        return f"the key `{entry.twice}` appears twice; remove one"
    return given(entry, kind)


def given(row: Mapping[str, Any], kind: RowKind) -> Mapping[str, Any] | str:
    """A row without what is null; or what is wrong with its keys."""
    if wrong := misspelt(row, kind.keys):
        return wrong
    for key in kind.needed:
        if row.get(key) is None:
            return f"the key `{key}` is {'null' if key in row else 'missing'}"
    return {key: value for key, value in row.items() if value is not None}
