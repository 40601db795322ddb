"""Ctrl-C and SIGTERM: stop, run every `finally`, and print how to resume.

At once, but for the steps of a training, which ends after the current phase with a checkpoint
(`reward_tuning.runs.signals`).
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from reward_tuning.runs.signals import keep_signal, signal_name


class Stopped(BaseException):
    """A signal asked the command to stop.

    Not a `KeyboardInterrupt`, because the argument parser catches that one.

    Attributes:
        number: Number of the signal.
        hint: How to resume; "" if nothing is lost.
    """

    def __init__(self, number: int, hint: str = "") -> None:
        super().__init__(number)
        self.number = number
        self.hint = hint

    @property
    def exit_code(self) -> int:
        """Exit code: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.number

    def message(self) -> str:
        """Return the last line that the command prints."""
        return f"stopped by {signal_name(self.number)}" + (f"; {self.hint}" if self.hint else "")


class StoppedAsAsked(Stopped):
    """A run has stopped after a step, because a signal or a file in its folder asked for it.

    Attributes:
        text: The message; empty on a process that is not to repeat it.
    """

    def __init__(self, text: str, number: int) -> None:
        super().__init__(number)
        self.text = text

    def message(self) -> str:
        """Return the last line that the command prints; empty for none."""
        return self.text


ECHO_SECONDS = 1.0
"""A second signal within this time is an echo of the first: a terminal and a parent process such as
`timeout` both send one. A later one means that the first did not help."""

_received: list[Stopped] = []


@contextmanager
def stop_signals() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into `Stopped`; restore the old handlers afterwards.

    A training that makes steps takes the signal itself. A second signal within `ECHO_SECONDS` is
    ignored; a later one exits without running any `finally`, which a run folder survives as it
    survives a kill.
    """
    _received.clear()
    first: list[float] = []
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        now = time.monotonic()
        if first:
            if now - first[0] > ECHO_SECONDS:
                os._exit(128 + number)
            return
        first.append(now)
        if not keep_signal(number, lambda: stop_at_once(number)):
            stop_at_once(number)

    def stop_at_once(number: int) -> None:
        _received.append(Stopped(number))
        raise _received[0]

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def raise_if_stopped() -> None:
    """Raise `Stopped` again if a signal arrived and Python swallowed the exception.

    Python prints and drops an exception that a handler raises inside a hook or a finaliser, and
    starting a process runs some. Long loops therefore call this regularly.
    """
    if _received:
        raise _received[0]


@contextmanager
def hint_when_stopped(hint: str) -> Iterator[None]:
    """Add a hint on how to resume if the body is stopped."""
    try:
        yield
    except Stopped as stop:
        stop.hint = hint
        raise
