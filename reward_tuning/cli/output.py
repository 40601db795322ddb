"""What the verbs print: machine-readable to stdout, tables to people."""

import json
from collections.abc import Sequence
from typing import Any


def print_json(data: Any) -> None:
    """Print data as one JSON document."""
    print(json.dumps(data, ensure_ascii=False, indent=2))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; the last column takes what space is left."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, title_style="bold")
    for position, column in enumerate(columns):
        last = position == len(columns) - 1
        table.add_column(column, no_wrap=not last, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # a Text: [brackets] are no markup
    console = Console(soft_wrap=False)
    console.print(table)
    console.print()
