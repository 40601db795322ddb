"""Tries, waits and threads."""

import threading
import time

import pytest

from rewards.core.asking import SHOWN, FailedTry, Patience, in_parallel, patiently, quoted
from rewards.errors import JudgeUnavailable
from tests.rewards.judge_server import Waits


class Flaky:
    def __init__(self, *failures: FailedTry) -> None:
        self.failures = list(failures)
        self.tries = 0

    def __call__(self) -> str:
        self.tries += 1
        if self.failures:
            raise self.failures.pop(0)
        return "answer"


def asked(flaky: Flaky, patience: Patience) -> str:
    return patiently(flaky, patience, threading.Event(), who="the judge x", advice="Look")


def test_waits_double_up_to_the_longest_and_follow_the_judge() -> None:
    waits = Waits()
    failures = [FailedTry("broken") for _ in range(8)]
    failures[2] = FailedTry("busy", after=30.0)
    failures[3] = FailedTry("busy", after=0.5)
    assert asked(Flaky(*failures), waits.patience(8)) == "answer"
    assert waits.seconds == [1, 2, 30, 8, 16, 32, 60, 60]


def test_the_last_try_tells_what_came_back_and_what_to_do() -> None:
    flaky = Flaky(*[FailedTry(f"failure {number}") for number in range(9)])
    with pytest.raises(JudgeUnavailable) as caught:
        asked(flaky, Waits().patience(3))
    assert str(caught.value) == (
        "the judge x gave no usable answer in 4 tries over 0 s: failure 3. Look"
    )
    assert flaky.tries == 4


def test_what_no_try_mends_is_not_tried_again() -> None:
    for failure, message in (
        (FailedTry("refused", again=False, advice="Log in"), "in one try: refused. Log in"),
        (
            FailedTry("busy", after=4000.0),
            r"in one try: busy \(it asks to wait 4000 s\). Look",
        ),
    ):
        waits = Waits()
        with pytest.raises(JudgeUnavailable, match=message):
            asked(Flaky(failure), waits.patience())
        assert waits.seconds == []


def test_a_real_wait_ends_when_the_others_have_given_up() -> None:
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    began = time.monotonic()
    flaky = Flaky(FailedTry("broken", after=50.0), FailedTry("broken"))
    with pytest.raises(JudgeUnavailable, match="in one try"):
        patiently(flaky, Patience(), stop, who="x", advice="y")
    assert 0.05 < time.monotonic() - began < 10


def test_tasks_run_at_the_same_time_and_no_more_than_asked() -> None:
    barrier, lock = threading.Barrier(3), threading.Lock()
    running, most = 0, 0

    def task(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        barrier.wait(10)
        with lock:
            running -= 1
        return number * 10

    tasks = [lambda stop, number=number: task(number) for number in range(6)]
    assert dict(in_parallel(tasks, 3, threading.Event())) == {
        number: number * 10 for number in range(6)
    }
    assert most == 3
    assert list(in_parallel([], 3, threading.Event())) == []


def test_after_a_failure_those_at_work_end_and_no_other_begins() -> None:
    begun: list[int] = []
    failed = threading.Event()

    def task(number: int, stop: threading.Event) -> int:
        begun.append(number)
        if number == 0:
            time.sleep(0.05)
            failed.set()
            raise ValueError("zero")
        failed.wait(10)
        assert stop.wait(10)
        return number

    tasks = [lambda stop, number=number: task(number, stop) for number in range(9)]
    found = []
    with pytest.raises(ValueError, match="zero"):
        for place, _ in in_parallel(tasks, 2, threading.Event()):
            found.append(place)
    assert sorted(begun) == [0, 1]
    assert found == [1]


def test_a_quoted_reply_is_one_short_line() -> None:
    assert quoted(b"a\n b\xff") == "a b\ufffd"
    assert quoted("x" * 1000) == "x" * SHOWN + "..."
    assert len(quoted(("é" * 5000).encode())) == SHOWN + 3
