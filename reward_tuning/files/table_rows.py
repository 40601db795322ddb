"""Rows of CSV files as Excel, LibreOffice and pandas write them: commas, semicolons or tabs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from typing import Any

from reward_tuning.files.rows import (
    LONGEST_VALUE,
    BadRow,
    Row,
    RowKind,
    cleaned,
    given,
    misspelt,
    row_of,
)

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
DIRECTIVE = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)  # Excel's first line
TYPOGRAPHIC = ("\u201c", "\u201d", "\u201e", "\u00ab", "\u00bb")
"""Quotes of word processors."""
NO_QUOTES = {"'": "'", "`": "`", "\u201c": "\u201d", "\u201e": "\u201c", "\u2018": "\u2019"} | {
    "\u00ab": "\u00bb"
}
"""Quotes around a cell that no program writes, so that they would be read as a part of the text."""
NULL = "null"
NOTHING = ("nan", "none", "n/a", "#n/a", "<na>", "nat")
"""What a program's missing value looks like where it was written as a text."""


def table_rows(text: str, ending: str, kind: RowKind) -> Iterator[Row | BadRow]:
    """Read a table with a header.

    A column without a name may be empty, or be the first and number the rows, as pandas writes it.

    Args:
        text: Of the file.
        ending: `.csv` or `.tsv`; a header that other separators fit better decides against it.
        kind: Of the rows.
    """
    skipped, separator = 0, None
    if found := DIRECTIVE.match(text):
        skipped, separator, text = 1, found[1], text[found.end() :]
    separator = separator or _separator(text, "\t" if ending == ".tsv" else ",", kind)
    rows = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=True
    )
    header: list[str] | None = None
    end = skipped
    try:
        for cells in rows:
            start, end = end + 1, skipped + rows.line_num  # a quoted cell may have several lines
            if not any(map(cleaned, cells)):
                continue
            if header is None:
                header = [cleaned(cell) for cell in cells]
                if wrong := _header_fault(header, kind):
                    yield BadRow(f"line {start}", wrong)
                    return
                continue
            yield row_of(f"line {start}", _values(cells, header, separator, kind))
    except csv.Error as error:
        yield _broken(error, end + 1, skipped + rows.line_num)


def _separator(text: str, usual: str, kind: RowKind) -> str:
    """The one at which the header has the needed columns, or else the most."""

    def fits(separator: str) -> tuple[bool, int, bool]:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        try:
            header = next((cells for cells in rows if any(map(cleaned, cells))), [])
        except csv.Error:
            header = []
        names = [cleaned(cell) for cell in header]
        return all(key in names for key in kind.needed), len(names), separator == usual

    return max(SEPARATORS, key=fits)


def _header_fault(header: list[str], kind: RowKind) -> str | None:
    words = re.findall(r"\w+", header[0])
    glued = len(header) == 1 and len(words) > 1 and any(word in kind.keys for word in words)
    if not glued and (wrong := misspelt(header, kind.keys)):
        return wrong
    twice = [name for name in kind.keys if header.count(name) > 1]
    if twice:
        return f"the column `{twice[0]}` appears twice; remove one"
    missing = [key for key in kind.needed if key not in header]
    if not missing:
        return None
    names = ", ".join(header)
    told = names if len(names) <= 2 * LONGEST_VALUE else names[: 2 * LONGEST_VALUE] + "..."
    if len(kind.needed) == 1:
        return (
            f"the header is {told}; a column `{missing[0]}` is required (cells are separated by a "
            "comma, a semicolon, a tab or a bar)"
        )
    return f"the header is {told}; no column {', '.join(missing)}; known: {', '.join(kind.keys)}"


def _values(
    cells: list[str], header: list[str], separator: str, kind: RowKind
) -> Mapping[str, Any] | str:
    """A row's cells by their columns, or what is wrong with them."""
    if [cleaned(cell) for cell in cells] == header:
        return "the header is repeated here, as in two joined files; remove the line"
    name = SEPARATORS.get(separator, repr(separator))
    if len(cells) != len(header):
        of = f"{_count(len(cells), 'cell')} for {_count(len(header), 'column')}"
        hint = f"put a text with a {name} in quotes"
        if any(quote in cell for cell in cells for quote in TYPOGRAPHIC):
            hint += ', and these quotes are ", not typographic ones'
        if len(cells) < len(header):
            hint = f"add a {name} for each cell that is empty"
            others = [
                one for one in SEPARATORS if separator.join(cells).count(one) == len(header) - 1
            ]
            if others:
                hint = f"this row has a {SEPARATORS[others[0]]} where the header has a {name}"
        return f"{of}; {hint} (the separator is the {name})"
    for place, (column, cell) in enumerate(zip(header, cells, strict=True)):
        if not column and cleaned(cell) and not (place == 0 and cleaned(cell).isdecimal()):
            return f"{cell[:LONGEST_VALUE]!r} is in a column without a name; name the column"
    row: dict[str, Any] = dict(zip(header, cells, strict=True))
    for key in kind.keys:
        cell = cleaned(row.get(key, ""))
        if wrong := _cell_fault(key, cell):
            return wrong
        if cell.lower() == NULL or (not cell and key not in kind.needed):
            row[key] = None
    return given(row, kind)


def _cell_fault(key: str, cell: str) -> str | None:
    """What looks like a text and was not meant as one."""
    short = cell[:LONGEST_VALUE]
    if cell.lower() in NOTHING:
        return f"{key} is {cell}, a placeholder for a missing value; leave the cell empty"
    closing = NO_QUOTES.get(cell[:1])
    if closing is not None and len(cell) > 2 and cell.find(closing, 1) == len(cell) - 1:
        return f'{key} is {short}, with these quotes as part of the text; use " or none'
    return None


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _broken(error: csv.Error, start: int, line: int) -> BadRow:
    """What is wrong where the reader stopped, in a row that begins in line `start`."""
    doubled = 'a quote inside a text is written twice ("")'
    if "end of data" in str(error) or "field larger" in str(error):
        wrong = f'a quote (") that opens here is never closed; {doubled}'
        if "field larger" in str(error):
            wrong = f"a text of more than {csv.field_size_limit()} characters: {wrong}"
        return BadRow(f"line {start}", f"not valid CSV: {wrong}")
    row = f" (in the row that begins in line {start})" if line > start else ""
    return BadRow(f"line {max(line, start)}", f"not valid CSV{row}: {error}; {doubled}")
