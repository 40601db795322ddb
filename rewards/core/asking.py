"""Ask a judge outside this process: several questions at a time, each again where a try fails."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rewards.errors import JudgeUnavailable

Result = TypeVar("Result")
Task = Callable[[threading.Event], Result]
"""Work on one question; the event says that the others have given up, so it should, too."""

BETWEEN_LOOKS = 0.2
"""Seconds between two looks at whether the judge was closed."""
SHOWN = 300
"""Characters of a reply that messages show."""


def quoted(text: str | bytes) -> str:
    """Return a reply for a message: on one line, its end left out if it is long."""
    if isinstance(text, bytes):
        text = text[: 4 * SHOWN + 4].decode(errors="replace")
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


class FailedTry(Exception):  # noqa: N818 - a try of several; only the last one is an error
    """A try to ask a judge has failed.

    Args:
        what: What came back instead of an answer.
        again: Whether another try may help.
        after: Seconds that the judge asks to wait; None if it does not say.
        advice: What to do where no try helps.
    """

    def __init__(
        self, what: str, *, again: bool = True, after: float | None = None, advice: str = ""
    ) -> None:
        super().__init__(what)
        self.what = what
        self.again = again
        self.after = after
        self.advice = advice


@dataclass(frozen=True)
class Patience:
    """How often, and after which waits, a question is asked again.

    The waits double from `first` up to `longest`, and are longer where the judge asks for that.
    They are not random: the same failures take the same time.

    Attributes:
        retries: Tries after the first.
        first: Seconds before the second try.
        longest: Upper bound of a wait, in seconds.
        most_asked: Longest wait that a judge may ask for, in seconds; one that asks for more is
            given up.
        pause: Wait some seconds, or until the event is set.
    """

    retries: int = 5
    first: float = 1.0
    longest: float = 60.0
    most_asked: float = 600.0
    pause: Callable[[threading.Event, float], object] = threading.Event.wait

    def wait_after(self, failure: int) -> float:
        """Return the seconds to wait after so many failures, from 1 up."""
        return min(self.longest, self.first * 2.0 ** min(failure - 1, 32))


def patiently(
    ask: Callable[[], Result], patience: Patience, stop: threading.Event, *, who: str, advice: str
) -> Result:
    """Ask until there is an answer.

    Args:
        ask: One try.
        patience: Number of tries, and the waits between them.
        stop: Set where no more tries are wanted.
        who: The judge and where it is, for messages.
        advice: What to do if the last try fails, too.

    Raises:
        JudgeUnavailable: No try gave an answer; it says what the last one gave.
    """
    began, tries = time.monotonic(), 0
    while True:
        tries += 1
        try:
            return ask()
        except FailedTry as failure:
            last = failure
        wait = max(patience.wait_after(tries), last.after or 0.0)
        told_to_wait = last.after is not None and last.after > patience.most_asked
        if not last.again or told_to_wait or tries > patience.retries or stop.is_set():
            break
        patience.pause(stop, wait)
        if stop.is_set():
            break
    counted = "one try" if tries == 1 else f"{tries} tries over {time.monotonic() - began:.0f} s"
    asked = f" (it asks to wait {last.after:.0f} s)" if told_to_wait else ""
    raise JudgeUnavailable(
        f"{who} gave no usable answer in {counted}: {last.what}{asked}. {last.advice or advice}"
    ) from last


def in_parallel(
    tasks: Sequence[Task[Result]], parallel: int, closed: threading.Event
) -> Iterator[tuple[int, Result]]:
    """Work on tasks in threads.

    After a failure no other task begins, and those at work are waited for, so that their answers
    are not lost. An interrupt of the main thread waits for none.

    Args:
        tasks: What to do; each may be called on any thread.
        parallel: Largest number of threads.
        closed: Once it is set, nothing is waited for any more.

    Yields:
        The position of a task and its result, as they come.

    Raises:
        Exception: The first one that a task raised.
    """
    stop, lock = threading.Event(), threading.Lock()
    waiting = iter(enumerate(tasks))
    done: queue.SimpleQueue[tuple[int, Result] | Exception | None] = queue.SimpleQueue()

    def work() -> None:
        while not stop.is_set():
            with lock:
                place, task = next(waiting, (-1, None))
            if task is None:
                break
            try:
                done.put((place, task(stop)))
            except Exception as error:
                stop.set()
                done.put(error)
        done.put(None)

    threads = min(parallel, len(tasks))
    for number in range(threads):
        # Daemons, so that a request that hangs does not keep an interrupted program alive.
        threading.Thread(target=work, name=f"judge-{number}", daemon=True).start()
    first: Exception | None = None
    try:
        while threads and not closed.is_set():
            try:
                found = done.get(timeout=BETWEEN_LOOKS)
            except queue.Empty:
                continue
            if found is None:
                threads -= 1
            elif isinstance(found, Exception):
                first = first or found
            else:
                yield found
    finally:
        stop.set()
    if first is not None:
        raise first
