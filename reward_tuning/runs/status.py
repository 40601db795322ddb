"""`status.json`: what a run does at this moment, for those who watch its folder.

It is written at most once a second and decides nothing: a run that cannot write it continues.
"""

from __future__ import annotations

import json
import os
import shlex
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from reward_tuning.files.atomic_write import temporary_path
from reward_tuning.files.json_text import parsed_json
from reward_tuning.progress import ProgressEvent, ProgressFn
from reward_tuning.runs.control import PAUSED, RunStopped
from reward_tuning.runs.folder import LOCK_FILE

STATUS_FILE, FORMAT = "status.json", 1
SECONDS_BETWEEN = 1.0
"""Least time between two writes, unless the state changes."""
RECENT = 50
"""Steps whose mean time predicts the time left: a run becomes faster once it is compiled and warm,
and slower when another program uses the device."""
TRAINING = "training"


class StatusFile:
    """Keep `status.json` up to date with the events of a run.

    Args:
        root: The run folder, which must exist: a folder that is gone is not created again.
        clock: Seconds that only grow; tests replace it.
        now: Seconds since 1970.
    """

    def __init__(
        self,
        root: Path,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path = root / STATUS_FILE
        self._clock = clock
        self._now = now
        self._began = now()
        self._started = psutil.Process().create_time()
        self._written = float("-inf")
        self._paused = False
        self._event = ProgressEvent("loading")
        self._step, self._steps = 0, 0
        self._units: deque[tuple[float, int]] = deque(maxlen=RECENT + 1)
        self._seconds_per_step: float | None = None

    def update(self, event: ProgressEvent) -> None:
        """Take in an event, and write the file where that is due.

        Raises:
            OSError: The file cannot be written.
        """
        clock = self._clock()
        paused = event.stage == PAUSED
        if paused:
            self._units.clear()
        else:
            self._measure(event, clock)
            self._event = event
        turned = paused != self._paused
        self._paused = paused
        if turned or clock - self._written >= SECONDS_BETWEEN:
            self._written = clock
            self._write("paused" if paused else "running", "")

    def end(self, state: str, message: str = "") -> None:
        """Write the last word of a run.

        Args:
            state: `finished`, `stopped` or `failed`.
            message: The reason, for people.

        Raises:
            OSError: The file cannot be written.
        """
        self._write(state, message)

    def remove(self) -> None:
        """Remove the file of a run that has not begun, so that its folder can go, too."""
        self._path.unlink(missing_ok=True)

    def _measure(self, event: ProgressEvent, clock: float) -> None:
        # Sample clips between two steps are part of what a step takes, so they do not begin anew.
        if event.stage == TRAINING:
            if not self._steps:
                self._units.clear()  # those of the loading
            self._step, self._steps = event.done, event.total
            if not self._units or event.done != self._units[-1][1]:
                self._units.append((clock, event.done))
            self._seconds_per_step = self._seconds_a_unit() or self._seconds_per_step
        elif self._step >= self._steps:
            if event.stage != self._event.stage:
                self._units.clear()
            if not self._units or event.done != self._units[-1][1]:
                self._units.append((clock, event.done))

    def _seconds_a_unit(self) -> float | None:
        if len(self._units) < 2:
            return None
        (began, first), (ended, last) = self._units[0], self._units[-1]
        return (ended - began) / (last - first) if last > first else None

    def _left(self) -> float | None:
        """Seconds until the training's last step; after it, until the end of the stage."""
        if self._step < self._steps:
            rate, rest = self._seconds_per_step, self._steps - self._step
        else:
            rate, rest = self._seconds_a_unit(), self._event.total - self._event.done
        return None if rate is None or rest < 0 else rate * rest

    def _write(self, state: str, message: str) -> None:
        ended = state not in ("running", "paused")
        status = {
            "format": FORMAT,
            "state": state,
            "message": message,
            "stage": self._event.stage,
            "phase": self._event.phase,
            "done": self._event.done,
            "total": self._event.total,
            "step": self._step,
            "steps": self._steps,
            "seconds_per_step": self._seconds_per_step,
            "left": None if ended else self._left(),
            "began": self._began,
            "time": self._now(),
            "pid": os.getpid(),
            "started": self._started,
        }
        # Without a flush to the disk: after a crash of the machine no run is left to report on.
        temporary = temporary_path(self._path)
        try:
            temporary.write_text(json.dumps(status, ensure_ascii=False), encoding="utf-8")
            temporary.replace(self._path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def kept_status(root: Path, begun: Callable[[], bool], report: ProgressFn) -> Iterator[ProgressFn]:
    """Keep `status.json` while the body runs, and write how it ended.

    Args:
        root: The run folder.
        begun: Return whether the run has begun; one that never did leaves no file.
        report: Receives every event first, and one note if the file cannot be written.

    Yields:
        The progress function to use instead of `report`.
    """
    status, broken = StatusFile(root), False

    def write(action: Callable[[], None]) -> None:
        nonlocal broken
        if broken:
            return
        try:
            action()
        except OSError as error:
            broken = True
            note = (
                f"{root / STATUS_FILE} cannot be written ({error.strerror or error}), so `watch` "
                "does not show what this run does; the run continues"
            )
            report(ProgressEvent("loading", note=note))

    def progress(event: ProgressEvent) -> None:
        report(event)
        write(lambda: status.update(event))

    def end(state: str, message: str = "") -> None:
        if not root.is_dir():  # moved or removed, which is the error that is on its way
            return
        write(status.remove if not begun() else lambda: status.end(state, message))

    try:
        yield progress
    except RunStopped as stop:
        end("stopped", str(stop))
        raise
    except Exception as error:
        end("failed", str(error) or type(error).__name__)
        raise
    except BaseException:  # Ctrl-C, or a signal
        end("stopped", "the run was interrupted")
        raise
    end("finished")


def read_status(root: Path) -> Mapping[str, Any] | None:
    """Read `status.json`; None where there is none, or of another version."""
    try:
        found = parsed_json((root / STATUS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("format") == FORMAT else None


def is_alive(status: Mapping[str, Any]) -> bool:
    """Return whether the process that wrote a status still runs on this machine.

    Its number alone does not tell: the system gives it to another process later.
    """
    try:
        started = psutil.Process(int(status["pid"])).create_time()
        return abs(started - float(status["started"])) < 1.0
    except (psutil.Error, KeyError, TypeError, ValueError, OverflowError):
        return False


def is_running(root: Path) -> bool:
    """Return whether a process works in a run folder: its status says so, or it holds the lock."""
    status = read_status(root)
    if status is not None and status.get("state") in ("running", "paused") and is_alive(status):
        return True
    if not (root / LOCK_FILE).is_file():
        return False
    try:
        with FileLock(root / LOCK_FILE, blocking=False):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # read-only, or without locks: the status alone counts
        return False


def unfinished_text(root: Path) -> str:
    """Say of an unfinished run what it is and what to do: `it is running; wait ...`."""
    place = shlex.quote(str(root))
    if is_running(root):
        return f"it is running; wait until it ends, or follow it with `reward-tuning watch {place}`"
    return f"it is not finished; resume it with `reward-tuning resume {place}`"
