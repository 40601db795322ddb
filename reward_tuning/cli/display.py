"""Progress on stderr: a live line on a terminal, an occasional plain line elsewhere."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from reward_tuning.cli.stopping import raise_if_stopped
from reward_tuning.progress import ProgressEvent

if TYPE_CHECKING:
    from rich.live import Live

PLAIN_SECONDS = 10.0
"""Least time between two plain lines of a stage: log files stay readable, a stall shows."""

_MEGABYTE = 1_000_000


def clock(seconds: float) -> str:
    """Format a duration as 4:05 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def megabytes(file: str, written: int, total: int) -> ProgressEvent:
    """Return the progress of a checkpoint that is being written, in megabytes.

    Args:
        file: Current file.
        written: Bytes so far.
        total: Bytes in all; both are rounded so that they are equal only at the end.
    """
    whole = -(-total // _MEGABYTE)
    now = whole if written == total else written // _MEGABYTE
    return ProgressEvent("megabytes", now, whole, file)


class Display:
    """Show progress events.

    Args:
        stream: Where to write; None = stderr.
        now: Clock in seconds; tests replace it.
    """

    def __init__(
        self, stream: TextIO | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream or sys.stderr
        self._now = now
        self._live: Live | None = None
        self._stage = ""
        self._began = 0.0  # time of the stage's first event
        self._first = 0  # its unit: a resumed run does not begin at 0
        self._printed_at = float("-inf")

    def __enter__(self) -> "Display":
        if self._stream.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                console=Console(file=self._stream), refresh_per_second=4, transient=True
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: ProgressEvent) -> None:
        """Show an event.

        Raises:
            Stopped: A signal has arrived and the command still runs.
        """
        raise_if_stopped()
        if event.note:
            self._print_note(event.note)
        now = self._now()
        fresh = event.stage != self._stage
        if fresh:
            self._stage, self._began, self._first = event.stage, now, event.done
        line = self._line(event, now)
        if self._live is not None:
            from rich.text import Text

            self._live.update(Text(line))
        elif (
            fresh
            or now - self._printed_at >= PLAIN_SECONDS
            or (event.total and event.done == event.total)
        ):
            self._printed_at = now
            print(line, file=self._stream, flush=True)

    def _print_note(self, note: str) -> None:
        if self._live is not None:
            self._live.console.print(note, markup=False, highlight=False)
        else:
            print(note, file=self._stream, flush=True)

    def _line(self, event: ProgressEvent, now: float) -> str:
        parts = [event.stage + (f" {event.done}/{event.total}" if event.total else "")]
        if event.phase:
            parts.append(event.phase)
        parts += [f"{name} {value:.4g}" for name, value in event.metrics.items()]
        done = event.done - self._first
        if event.total and done > 0 and event.done < event.total:
            parts.append(f"{clock((now - self._began) / done * (event.total - event.done))} left")
        return "  ".join(parts)
