"""A tracker that may fail without losing the run: what did not arrive is sent again, then named."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from reward_tuning.errors import shortened
from reward_tuning.files.masked_text import masked
from reward_tuning.runs.tracker_parts import SampleClip, Table, Tracker

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO}
"""Faults of a disk: they end the run, as those of metrics.jsonl do."""
TRIES = 3
"""Failures in a row after which the rest waits, too: the network is down."""


@dataclass(frozen=True)
class _Call:
    """A call that has not arrived yet."""

    step: int
    what: str
    send: Callable[[], None]


class PatientTracker:
    """Pass everything on to a tracker, and keep what fails for later.

    A failure is told once. From then on everything waits until the next checkpoint and the end of
    the run, where it is sent again; what is left then is named. Nothing is lost in any case, for
    metrics.jsonl and the run folder hold it all.

    Args:
        name: The tracker's name in a recipe.
        tracker: The tracker.
        tell: Show a line to the person at the terminal.
    """

    def __init__(self, name: str, tracker: Tracker, tell: Callable[[str], None]) -> None:
        self.name = name
        self.tracker = tracker
        self._tell = tell
        self._waiting: list[_Call] = []
        self._error: Exception | None = None

    @property
    def last_step(self) -> int:
        """Highest step that was there when the tracker began; -1 for none."""
        return self.tracker.last_step

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Pass on `Tracker.log`; this and the next methods raise `OSError` for a full disk."""
        self._call(step, "numbers", partial(self.tracker.log, step, scalars))

    def video(self, step: int, clips: Sequence[SampleClip]) -> None:
        """Pass on `Tracker.video`."""
        self._call(step, "clips", partial(self.tracker.video, step, clips))

    def table(self, step: int, name: str, table: Table) -> None:
        """Pass on `Tracker.table`."""
        self._call(step, f"table {name}", partial(self.tracker.table, step, name, table))

    def recipe(self, path: Path, values: Mapping[str, Any]) -> None:
        """Pass on `Tracker.recipe`."""
        self._call(0, "recipe", partial(self.tracker.recipe, path, values))

    def flush(self) -> None:
        """Send again what waits, and flush."""
        if self._send():
            self._try(self.tracker.flush)

    def close(self, *, finished: bool) -> None:
        """Send again what waits, close, and name what did not arrive."""
        complete = self._send()
        closed = self._try(partial(self.tracker.close, finished=finished))
        if complete and closed:
            return
        what = "its end" if complete else _named(self._waiting)
        self._tell(
            f"tracking: {self.name} lacks {what}: {_reason(self._error)}. The run is not affected: "
            "metrics.jsonl and the run folder hold everything"
        )

    def _call(self, step: int, what: str, send: Callable[[], None]) -> None:
        self._waiting.append(_Call(step, what, send))
        if len(self._waiting) > 1:
            return  # an earlier one waits for the next checkpoint
        if not self._send():
            self._tell(
                f"tracking: {self.name} failed at step {step}: {_reason(self._error)}. The run "
                "goes on; what did not arrive is sent again at each checkpoint and at the end"
            )

    def _send(self) -> bool:
        """Send what waits, in order; return whether all of it arrived."""
        left: list[_Call] = []
        failed = 0
        while self._waiting:
            if failed == TRIES:
                break
            call = self._waiting.pop(0)
            if self._try(call.send):
                failed = 0
            else:
                failed += 1
                left.append(call)
        self._waiting = left + self._waiting
        return not self._waiting

    def _try(self, send: Callable[[], None]) -> bool:
        try:
            send()
        except Exception as error:
            if isinstance(error, OSError) and error.errno in DISK:
                raise
            self._error = error
            return False
        return True


def _named(calls: Sequence[_Call]) -> str:
    counts: dict[str, int] = {}
    for call in calls:
        counts[call.what] = counts.get(call.what, 0) + 1
    first, last = min(call.step for call in calls), max(call.step for call in calls)
    what = ", ".join(f"{name} ({count})" for name, count in counts.items())
    return f"{what} of step {first}" if first == last else f"{what} of steps {first} to {last}"


def _reason(error: Exception | None) -> str:
    lines = masked(str(error)).split("\n")
    return shortened(lines[0].strip().rstrip(".") or type(error).__name__, 300)
