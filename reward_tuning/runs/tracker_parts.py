"""What a tracker is, what it is made from, and what it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

PROJECT = "reward-tuning"
"""Name under which a tool files the runs, unless the tool's own settings say another."""


@dataclass(frozen=True)
class TrackerStart:
    """What a tracker is made from.

    Attributes:
        folder: The run folder.
        steps: Steps done so far. What a killed process logged of later ones is logged again.
        logged: Highest step that an earlier process of the run wrote to metrics.jsonl; -1 for none.
        kept: What the tracker kept of itself in the run folder when the run began; else empty.
    """

    folder: Path
    steps: int = 0
    logged: int = -1
    kept: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> Path:
        """Folder of the run for the files that tools write."""
        return self.folder / "tracking"


@dataclass(frozen=True)
class SampleClip:
    """A clip in the run folder.

    Attributes:
        name: Name of the series that it continues, such as `samples/00`.
        path: Its mp4 file.
        prompt: Its prompt; a person's text.
    """

    name: str
    path: Path
    prompt: str = ""


Cell = str | float | int | None


@dataclass(frozen=True)
class Table:
    """A table of texts and numbers.

    Attributes:
        columns: Names of the columns.
        rows: One cell for each column.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def markdown(self) -> str:
        """Format the table; names of judges are a person's texts and cannot break out of a cell."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join(f"| {' | '.join(map(_markdown_cell, line))} |" for line in lines)


def _markdown_cell(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:.6g}"
    text = " ".join(str(cell).split())
    for mark in "\\|`*_<>[]":
        text = text.replace(mark, "\\" + mark)
    return "---" if text == "\\-\\-\\-" else text


class Tracker(Protocol):
    """Receives a run. Any call may fail: see `reward_tuning.runs.patient_tracker`."""

    @property
    def last_step(self) -> int:
        """Highest step that is there already, up to which nothing needs to be sent; -1 for none."""

    @property
    def kept(self) -> Mapping[str, str]:
        """What the tracker needs to continue the run; no secrets."""

    @property
    def where(self) -> str:
        """Where a person finds the run; empty if the run folder says it all."""

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Take in numbers of one step, by name; `step` is 0 before the first and never falls."""

    def video(self, step: int, clips: Sequence[SampleClip]) -> None:
        """Take in the sample clips of one step."""

    def table(self, step: int, name: str, table: Table) -> None:
        """Take in a table."""

    def recipe(self, path: Path, values: Mapping[str, Any]) -> None:
        """Take in the recipe: its file, and its values, nested. A resumed run sends it again."""

    def flush(self) -> None:
        """Bring everything logged so far to its destination, before a checkpoint relies on it."""

    def close(self, *, finished: bool) -> None:
        """Finish; no call follows. `finished` is false where the run was stopped or failed."""
