"""Questions in the background: in their order, one at a time, their errors where one waits."""

from __future__ import annotations

import threading
import time
import weakref

import pytest
import torch

from reward_tuning.judges.background import AtOnce, Background


def test_questions_are_asked_in_order_while_the_caller_works() -> None:
    background, gate, seen = Background(), threading.Event(), list[int]()

    def question(number: int) -> int:
        assert gate.wait(10)  # not asked before the caller has gone on
        seen.append(number)
        return 2 * number

    waits = [background.ask(lambda number=number: question(number)) for number in range(3)]
    assert seen == []
    gate.set()
    assert [wait() for wait in waits] == [0, 2, 4]
    assert seen == [0, 1, 2]


def test_an_error_is_raised_where_the_answer_is_awaited_and_ends_nothing_else() -> None:
    background = Background()

    def fails() -> int:
        raise ValueError("no answer")

    wait = background.ask(fails)
    with pytest.raises(ValueError, match="no answer"):
        wait()
    assert background.ask(lambda: 3)() == 3


def test_at_once_asks_before_it_returns() -> None:
    seen = list[int]()
    wait = AtOnce().ask(lambda: seen.append(1))
    assert seen == [1]
    assert wait() is None
    assert seen == [1]


def test_a_question_is_let_go_once_it_is_answered() -> None:
    """It holds decoded clips, which are large, while the thread waits for the next one."""
    background, frames = Background(), torch.zeros(3)
    kept = weakref.ref(frames)
    background.ask(lambda frames=frames: float(frames.sum()))()
    del frames
    until = time.monotonic() + 5
    while kept() is not None and time.monotonic() < until:
        time.sleep(0.01)
    assert kept() is None
