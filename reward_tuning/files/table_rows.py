"""Rows of CSV files as Excel, LibreOffice and pandas write them: commas, semicolons or tabs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import Any

from reward_tuning.files.clean_text import MAX_SHOWN, cleaned
from reward_tuning.files.columns import BadRow, Row, RowFormat, misspelling, named_row

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_DIRECTIVE = re.compile(r"sep=(.)\r?\n", re.IGNORECASE)  # Excel's first line
_TYPOGRAPHIC = ("\u201c", "\u201d", "\u201e", "\u00ab", "\u00bb")
"""Quotes of word processors."""
_WRONG_QUOTES = {"'": "'", "`": "`", "\u201c": "\u201d", "\u201e": "\u201c", "\u2018": "\u2019"} | {
    "\u00ab": "\u00bb"
}
"""Opening to closing quote, of quotes that no CSV reader removes from around a cell."""
_NULL = "null"
_PLACEHOLDERS = ("nan", "none", "n/a", "#n/a", "<na>", "nat")
"""Missing values as pandas, Python and Excel write them."""


def table_rows(text: str, suffix: str, row_format: RowFormat) -> Iterator[Row | BadRow]:
    """Read a table with a header.

    A column without a name is accepted if it is empty, or if it is the first and numbers the rows,
    as pandas writes it.

    Args:
        text: Content of the file.
        suffix: `.csv` or `.tsv`: the separator to assume unless the header fits another one better.
        row_format: Columns of the file.
    """
    skipped, separator = 0, None
    if found := _DIRECTIVE.match(text):
        skipped, separator, text = 1, found[1], text[found.end() :]
    separator = separator or _separator(text, "\t" if suffix == ".tsv" else ",", row_format)
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
            place = f"line {start}"
            if header is not None:
                yield _row(place, cells, header, separator, row_format)
                continue
            header = [cleaned(cell) for cell in cells]
            if fault := _header_fault(header, row_format):
                yield BadRow(place, fault)
                return
    except csv.Error as error:
        yield _broken(error, end + 1, skipped + rows.line_num)


def _separator(text: str, usual: str, row_format: RowFormat) -> str:
    """Return the separator at which the header has the required columns, or else the most."""

    def fits(separator: str) -> tuple[bool, int, bool]:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
        try:
            header = next((cells for cells in rows if any(map(cleaned, cells))), [])
        except csv.Error:
            header = []
        names = [cleaned(cell) for cell in header]
        return not _missing(names, row_format), len(names), separator == usual

    return max(SEPARATORS, key=fits)


def _missing(header: list[str], row_format: RowFormat) -> list[str]:
    """Return the required columns that a header lacks, with their names, for a message."""
    return [
        column.quoted
        for column in row_format.required
        if not any(name in header for name in column.names)
    ]


def _header_fault(header: list[str], row_format: RowFormat) -> str | None:
    words = re.findall(r"\w+", header[0])
    glued = len(header) == 1 and len(words) > 1 and any(one in row_format.names for one in words)
    if not glued and (fault := misspelling(header, row_format)):
        return fault
    read = [name for column in row_format.columns for name in column.read_names(header)]
    repeated = [name for name in read if header.count(name) > 1]
    if repeated:
        return f"the column `{repeated[0]}` appears twice; remove one"
    if not (missing := _missing(header, row_format)):
        return None
    names = ", ".join(header)
    shown = names if len(names) <= 2 * MAX_SHOWN else names[: 2 * MAX_SHOWN] + "..."
    return (
        f"the header is {shown}; a column {' and a column '.join(missing)} is required (cells are "
        "separated by a comma, a semicolon, a tab or a bar)"
    )


def _row(
    place: str, cells: list[str], header: list[str], separator: str, row_format: RowFormat
) -> Row | BadRow:
    """Read a line of cells under the header."""
    if [cleaned(cell) for cell in cells] == header:
        return BadRow(place, "the header is repeated here, as in two joined files; remove the line")
    if len(cells) != len(header):
        return BadRow(place, _wrong_count(cells, header, separator))
    for number, (name, cell) in enumerate(zip(header, cells, strict=True)):
        if not name and cleaned(cell) and not (number == 0 and cleaned(cell).isdecimal()):
            return BadRow(
                place, f"{cell[:MAX_SHOWN]!r} is in a column without a name; name the column"
            )
    raw: dict[str, Any] = dict(zip(header, cells, strict=True))
    for column in row_format.columns:
        cells_of = {name: cleaned(raw[name]) for name in column.names if name in raw}
        empty = [name for name, cell in cells_of.items() if not cell]
        given = [name for name, cell in cells_of.items() if cell and cell.lower() != _NULL]
        if column.may_be_empty and column.main in empty:
            given.append(column.main)
        # An empty cell is "not given"; in a required column, an empty text, unless another name of
        # the column is filled.
        if column.required and not given:
            given = empty[:1]
        read = column.read_names(given)
        for name, cell in cells_of.items():
            if name not in given or name not in read:
                raw[name] = None
            elif fault := _cell_fault(name, cell):
                return BadRow(place, fault)
    return named_row(place, raw, row_format)


def _wrong_count(cells: list[str], header: list[str], separator: str) -> str:
    """Return what is wrong with a line of too many or too few cells."""
    name = SEPARATORS.get(separator, repr(separator))
    hint = f"put a text with a {name} in quotes"
    if any(quote in cell for cell in cells for quote in _TYPOGRAPHIC):
        hint += ', and these quotes are ", not typographic ones'
    if len(cells) < len(header):
        hint = f"add a {name} for each cell that is empty"
        others = [one for one in SEPARATORS if separator.join(cells).count(one) == len(header) - 1]
        if others:
            hint = f"this row has a {SEPARATORS[others[0]]} where the header has a {name}"
    count = f"{_count(len(cells), 'cell')} for {_count(len(header), 'column')}"
    return f"{count}; {hint} (the separator is the {name})"


def _cell_fault(name: str, cell: str) -> str | None:
    """Report a cell that looks like a text and was not meant as one."""
    if cell.lower() in _PLACEHOLDERS:
        return f"{name} is {cell}, a placeholder for a missing value; leave the cell empty"
    closing = _WRONG_QUOTES.get(cell[:1])
    if closing is not None and len(cell) > 2 and cell.find(closing, 1) == len(cell) - 1:
        return (
            f"{name} is {cell[:MAX_SHOWN]}, with these quotes as part of the text; "
            'use " or no quotes'
        )
    return None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _broken(error: csv.Error, start: int, line: int) -> BadRow:
    """Return what is wrong where the reader stopped, in a row that begins in line `start`."""
    doubled = 'a quote inside a text is written twice ("")'
    if "end of data" in str(error) or "field larger" in str(error):
        fault = f'a quote (") that opens here is never closed; {doubled}'
        if "field larger" in str(error):
            fault = f"a text of more than {csv.field_size_limit()} characters: {fault}"
        return BadRow(f"line {start}", f"not valid CSV: {fault}")
    row = f" (in the row that begins in line {start})" if line > start else ""
    return BadRow(f"line {max(line, start)}", f"not valid CSV{row}: {error}; {doubled}")
