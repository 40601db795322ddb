"""A file of one JSON object a line, read as it grows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reward_tuning.files.json_text import parsed_json
from reward_tuning.watch.sendable import sendable

Row = dict[str, Any]
MOST_BYTES = 16_000_000
"""Read in one go; what is left comes with the next, so a long file delays no answer for long."""


class GrowingRows:
    """Read rows as a run appends them.

    A last line without its end is read once it is whole. A file that was replaced, as by a resume
    that drops rows, or that has become shorter, is read again from its beginning.

    Attributes:
        rows: Every row so far: objects with an integer `step`.
        generation: Grows each time the rows begin anew.
        damaged: Lines that were no such object.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: tuple[int, int] | None = None
        self._offset = 0
        self._rest = b""
        self.rows: list[Row] = []
        self.generation = 0
        self.damaged = 0

    def update(self) -> None:
        """Read what is new; a file that is missing has no rows.

        Raises:
            OSError: The file is there and cannot be read.
        """
        try:
            with self._path.open("rb") as file:
                found = self._stat(file.fileno())
                if found[:2] != self._file or found[2] < self._offset:
                    self._begin(found[:2])
                file.seek(self._offset)
                new = file.read(MOST_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            if self._file is not None:
                self._begin(None)
            return
        self._offset += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        self.rows += self._read(lines)

    @staticmethod
    def _stat(handle: int) -> tuple[int, int, int]:
        found = os.fstat(handle)
        return found.st_dev, found.st_ino, found.st_size

    def _begin(self, file: tuple[int, int] | None) -> None:
        self._file, self._offset, self._rest = file, 0, b""
        self.rows, self.damaged = [], 0
        self.generation += 1

    def _read(self, lines: list[bytes]) -> Iterator[Row]:
        for line in lines:
            if not line.strip():
                continue
            try:
                row = sendable(parsed_json(line))
            except ValueError:
                row = None
            if isinstance(row, dict) and type(row.get("step")) is int:
                yield row
            else:
                self.damaged += 1


def flat(row: Row) -> Row:
    """Return the numbers of a row, those of objects in it as `object/key`; lists are left out."""
    found: Row = {}
    for name, value in row.items():
        if isinstance(value, dict):
            found |= {f"{name}/{key}": inner for key, inner in flat(value).items()}
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = value
    return found
