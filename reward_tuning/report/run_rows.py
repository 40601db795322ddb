"""Rows of metrics.jsonl and guards.jsonl, also those of a run that is still writing them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reward_tuning.files.json_text import parsed_json

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Read the objects of a file of one object a line; none if there is no file.

    Lines that are no whole object are left out: the run was killed in one, or writes it now.
    """
    if not path.is_file():
        return []
    rows = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = parsed_json(text)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def number(row: Row, *keys: str) -> float | None:
    """Return a number inside a row; None where it is missing, null or not finite."""
    value: Any = row
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        found = float(value)
    except OverflowError:  # a whole number beyond 1.8e308
        return None
    return found if math.isfinite(found) else None


def column(rows: Sequence[Row], *keys: str) -> list[float | None]:
    """Return a number of each row."""
    return [number(row, *keys) for row in rows]


def names(rows: Sequence[Row], key: str) -> list[str]:
    """Return the keys of an object in the rows, in the order in which they first appear."""
    found = [row[key] for row in rows if isinstance(row.get(key), dict)]
    return list(dict.fromkeys(name for one in found for name in one))


def trailing_mean(values: Sequence[float | None], width: int) -> list[float | None]:
    """Return the mean of each value and up to `width - 1` before it; nulls do not count."""
    found: list[float | None] = []
    for end in range(1, len(values) + 1):
        window = [v for v in values[max(0, end - width) : end] if v is not None]
        found.append(sum(window) / len(window) if window else None)
    return found
