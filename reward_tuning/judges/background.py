"""A judge that answers in the background, while the generator works on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

Answer = TypeVar("Answer")


class Asking(Protocol):
    """Where a question is asked."""

    def ask(self, question: Callable[[], Answer]) -> Callable[[], Answer]:
        """Return what waits for the answer, and raises what the question raised."""


class Background:
    """One thread that asks questions in their order.

    It is a daemon: a run that ends with an error does not wait for a judge that answers no more.
    """

    def __init__(self) -> None:
        self._questions: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]]
        self._questions = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def ask(self, question: Callable[[], Answer]) -> Callable[[], Answer]:
        """Ask in the background (`Asking.ask`)."""
        future: Future[Answer] = Future()
        self._questions.put((future, question))
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="judges", daemon=True)
            self._thread.start()
        return future.result

    def _work(self) -> None:
        while True:
            _answer(*self._questions.get())


def _answer(future: Future[Any], question: Callable[[], Any]) -> None:
    """Answer a question; its frames are free on return, while the next one is waited for."""
    try:
        future.set_result(question())
    except BaseException as error:  # raised where the answer is awaited
        future.set_exception(error)


class AtOnce:
    """Ask and wait."""

    def ask(self, question: Callable[[], Answer]) -> Callable[[], Answer]:
        """Ask before it returns (`Asking.ask`)."""
        answer = question()
        return lambda: answer
