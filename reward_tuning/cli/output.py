"""Printing of JSON, tables and errors, the same in all verbs."""

import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from reward_tuning.errors import shortened

MAX_CHARS, MAX_CHARS_OF_LIST, MAX_LINES = 490, 1900, 20
"""Limits of an error: characters of one or two lines, and characters and lines of a list.

An error must fit on a screen, whatever file name or override it quotes.
"""
COMMAND, MAX_COMMAND = "hf download ", 600
"""What is in a line with a command, and the longest that is not shortened: it is to be copied."""


_ORDERS = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"
}
"""Control characters that a terminal obeys, and how they are shown; file names may hold them."""


def harmless(text: str) -> str:
    """Return a text in which orders to the terminal are spelt out, so that it obeys none."""
    return text.translate(_ORDERS)


def error_text(error: BaseException) -> str:
    """Return an error's text, shortened to fit a screen; omitted parts are counted."""
    lines = list(map(harmless, str(error).splitlines())) or [type(error).__name__]
    if len(lines) > MAX_LINES:
        lines = [*lines[: MAX_LINES - 1], f"and {len(lines) - MAX_LINES + 1} more lines"]
    limit = MAX_CHARS if len(lines) <= 2 else MAX_CHARS_OF_LIST
    room = limit - len(lines)
    for count, length in enumerate(
        sorted(map(len, lines)), 1
    ):  # short lines leave room for long ones
        share = room // (len(lines) - count + 1)
        if length > share:
            return "\n".join(
                line if _is_command(line) else shortened(line, share) for line in lines
            )
        room -= length
    return "\n".join(lines)


def _is_command(line: str) -> bool:
    return COMMAND in line and len(line) <= MAX_COMMAND


@contextmanager
def warning_lines() -> Iterator[None]:
    """Print each warning of ours once, as `warning: ...` on stderr, without its place in the code.

    Other warnings, which are for developers, keep Python's form.
    """
    printed = set()
    with warnings.catch_warnings():
        of_others = warnings.showwarning

        def show(message: Any, category: type[Warning], *place: Any, **options: Any) -> None:
            from reward_tuning.schema.judge_roles import RenamedKeyWarning  # `--help` needs none

            if not issubclass(category, RenamedKeyWarning):
                of_others(message, category, *place, **options)
            elif str(message) not in printed:
                printed.add(str(message))
                print(f"warning: {message}", file=sys.stderr)

        warnings.showwarning = show
        yield


def print_json(data: Any) -> None:
    """Print data as one JSON document."""
    print(json.dumps(data, ensure_ascii=False, indent=2))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the last column takes the remaining width."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # `Text`, since rich would read [brackets] as markup
    shown = Text(harmless(title), style="bold")
    table = Table(title=shown, title_justify="left", box=None, pad_edge=False)
    for position, column in enumerate(columns):
        last = position == len(columns) - 1
        table.add_column(column, no_wrap=not last, overflow="fold")
    for row in rows:
        table.add_row(*(Text(harmless(cell)) for cell in row))
    console = Console(soft_wrap=False)
    console.print(table)
    console.print()
