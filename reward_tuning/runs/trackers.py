"""Where the numbers of a run go besides metrics.jsonl: a tracker is three calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from reward_tuning.runs.tensorboard import TensorBoard


class Tracker(Protocol):
    """Receives the numbers of each step. Any call may raise `OSError`, which ends the run."""

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Take in the numbers of one step, by name; `step` is 0 before the first."""

    def flush(self) -> None:
        """Bring everything logged so far to its destination, before a checkpoint relies on it."""

    def close(self) -> None:
        """Finish; no call follows."""


TRACKERS: tuple[Callable[[Path, int], Tracker], ...] = (TensorBoard,)
"""Trackers of every run, each made from the run folder and the steps done so far. Whatever a
killed run logged after these steps is to be dropped, for the resumed run logs it again."""
