"""One run as the page shows it: what it does, its rows, its clips, the orders given to it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reward_tuning.errors import TuningError
from reward_tuning.files.atomic_write import REMEDIES
from reward_tuning.report.pages import readable
from reward_tuning.runs.control import ORDERS, order_file
from reward_tuning.runs.resume_command import resume_command
from reward_tuning.runs.status import is_alive, read_status
from reward_tuning.watch.json_lines import GrowingRows, Row, flat
from reward_tuning.watch.samples import Samples
from reward_tuning.watch.sendable import sendable

SILENT = 15.0
"""Seconds without a sign of life after which a process that is not here counts as silent."""
MOST_ROWS = 4000
"""Rows in one answer; the page asks again for the others."""
OBEYING = ("running", "paused", "silent")
SHOWN_STATUS = (
    "message",
    "stage",
    "phase",
    "done",
    "total",
    "step",
    "steps",
    "seconds_per_step",
    "left",
    "began",
    "time",
)
FINISHED = ("evaluation.json", "finetune.json")
Have = tuple[int, int]
"""Generation and number of the rows that the page has already."""


class WatchedRun:
    """A run folder that is read again and again.

    Args:
        root: The run folder.
        identity: Its name in addresses.
        name: Its name for people.
    """

    def __init__(self, root: Path, identity: str, name: str) -> None:
        self.root = root
        self.identity = identity
        self.name = name
        self.samples = Samples(root)
        self._metrics = GrowingRows(root / "metrics.jsonl")
        self._guards = GrowingRows(root / "guards.jsonl")

    def view(self, metrics: Have = (-1, 0), guards: Have = (-1, 0)) -> dict[str, Any]:
        """Return everything that the page shows of the run, and the rows that it lacks.

        Args:
            metrics: What the page has of metrics.jsonl.
            guards: What the page has of guards.jsonl.
        """
        status = self._status()
        state = self._state(status)
        faults = [fault for rows in (self._metrics, self._guards) if (fault := _updated(rows))]
        return {
            "id": self.identity,
            "name": readable(self.name),
            "state": state,
            "status": {key: status[key] for key in SHOWN_STATUS if key in status}
            if status
            else None,
            "resume": readable(resume_command(self.root, self._processes())),
            "orders": {name: order_file(self.root, name).exists() for name in ORDERS},
            "obeys": state in OBEYING,
            "metrics": _answer(self._metrics, metrics, flat),
            "guards": _answer(self._guards, guards, _guard_row),
            "damaged": self._metrics.damaged + self._guards.damaged,
            "faults": faults,
            "samples": self.samples.steps(),
            "prompts": self.samples.prompts(),
        }

    def _status(self) -> Mapping[str, Any] | None:
        found: Mapping[str, Any] | None = sendable(read_status(self.root))
        return found

    def _state(self, status: Mapping[str, Any] | None) -> str:
        """Return running, paused, silent, stopped, failed, finished or unknown."""
        if status is None:
            finished = any((self.root / name).is_file() for name in FINISHED)
            return "finished" if finished else "unknown"
        state = str(status.get("state"))
        if state in ("running", "paused") and not is_alive(status):
            told = status.get("time")
            age = time.time() - told if isinstance(told, int | float) else SILENT + 1
            return "silent" if age > SILENT else state
        return state

    def _processes(self) -> int:
        """Return how many processes the run began with, from the head of its recipe."""
        try:
            with (self.root / "recipe.yaml").open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    words = line.split()
                    if not line.startswith("# "):
                        break
                    if len(words) == 3 and words[1] == "processes" and words[2].isdecimal():
                        return int(words[2])
        except OSError:  # not begun yet
            return 1
        return 1

    def order(self, name: str, *, given: bool) -> None:
        """Give an order to the run, or take it back.

        Args:
            name: One of `ORDERS`.
            given: Create its file, or remove it.

        Raises:
            TuningError: There is no such order, nothing runs there, or the folder cannot be
                written.
        """
        if name not in ORDERS:
            raise TuningError(f"no order {name!r}; there are {', '.join(ORDERS)}")
        file = order_file(self.root, name)
        if given and self._state(self._status()) not in OBEYING:
            raise TuningError(
                f"{self.name} does not run, so nobody would read the order; "
                f"resume with: {resume_command(self.root, self._processes())}"
            )
        try:
            if given:
                file.parent.mkdir(exist_ok=True)
                file.touch()
            else:
                file.unlink(missing_ok=True)
        except OSError as error:
            remedy = REMEDIES.get(error.errno or 0, f"check {file.parent}, which is to be a folder")
            raise TuningError(
                f"{file} cannot be {'written' if given else 'removed'}: "
                f"{error.strerror or error}; {remedy}"
            ) from error

    def recipe(self) -> str:
        """Return the text of the recipe; empty where the run has not begun.

        Raises:
            TuningError: It leads out of the run folder.
        """
        path = self.root / "recipe.yaml"
        if not path.is_file():
            return ""
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise TuningError(f"{path} is a link that leads out of its run folder")
        return path.read_text(encoding="utf-8", errors="replace")


def _updated(rows: GrowingRows) -> str:
    """Read new rows; return what went wrong, for people, or an empty text."""
    try:
        rows.update()
    except OSError as error:
        return readable(f"{error.filename} cannot be read: {error.strerror or error}")
    return ""


def _answer(rows: GrowingRows, have: Have, shown: Any) -> dict[str, Any]:
    generation, count = have
    first = count if generation == rows.generation and 0 <= count <= len(rows.rows) else 0
    new = rows.rows[first : first + MOST_ROWS]
    return {
        "generation": rows.generation,
        "first": first,
        "rows": [shown(row) for row in new],
        "more": first + len(new) < len(rows.rows),
    }


def _guard_row(row: Row) -> dict[str, Any]:
    """Return a guard evaluation: its numbers, and the rules that fired as texts."""
    listed = row.get("fired")
    fired = [one for one in (listed if isinstance(listed, list) else ()) if isinstance(one, dict)]
    texts = [
        {key: readable(one.get(key, "")) for key in ("rule", "action", "text")} for one in fired
    ]
    return {"numbers": flat(row), "fired": texts, "best": row.get("best")}
