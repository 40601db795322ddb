"""Ctrl-C and SIGTERM: leave at once, through every `finally`, and say how to go on."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(BaseException):
    """Someone asked the command to stop.

    No `KeyboardInterrupt`, which the argument parser would take for its own.

    Attributes:
        number: Of the signal.
        hint: How to go on; empty where nothing is lost.
    """

    def __init__(self, number: int, hint: str = "") -> None:
        super().__init__(number)
        self.number = number
        self.hint = hint

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.number

    def told(self) -> str:
        """Return the last line a person sees."""
        name = "Ctrl-C" if self.number == signal.SIGINT else signal.Signals(self.number).name
        return f"stopped by {name}" + (f"; {self.hint}" if self.hint else "")


IMPATIENT = 1.0
"""Seconds after which a second signal means that the first did not help; before, it is an echo."""

_asked: list[tuple[Stopped, float]] = []


@contextmanager
def stop_signals() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into `Stopped`; put the old handlers back afterwards.

    A second signal at once, as a terminal and its parent both send one, is not another; a later one
    leaves without any `finally`, which a run folder stands as it stands a kill.
    """
    _asked.clear()
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        now = time.monotonic()
        if _asked:
            if now - _asked[0][1] > IMPATIENT:
                os._exit(128 + number)
            return
        _asked.append((Stopped(number), now))
        raise _asked[0][0]

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_if_asked() -> None:
    """Raise what a signal asked for and Python swallowed.

    An exception that a handler raises inside a hook or a finaliser (starting a process runs some)
    is printed and dropped. What goes on for long calls this now and then.
    """
    if _asked:
        raise _asked[0][0]


@contextmanager
def hint_when_stopped(hint: str) -> Iterator[None]:
    """Say how to go on if the body is stopped."""
    try:
        yield
    except Stopped as stop:
        stop.hint = hint
        raise
