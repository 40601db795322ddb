"""The progress display: what it prints, when, and the time left."""

import io
import time

import pytest

from reward_tuning.cli.display import Display, clock, megabytes
from reward_tuning.progress import ProgressEvent


def events(*done: int) -> list[ProgressEvent]:
    return [ProgressEvent("training", unit, 10, "rollout", {"reward": 0.5}) for unit in done]


def test_plain_display_prints_now_and_then() -> None:
    stream, seconds = io.StringIO(), iter([0.0, 4.0, 12.0, 13.0, 40.0])
    with Display(stream, lambda: next(seconds)) as display:
        for event in events(0, 1, 3, 4, 10):
            display(event)
    assert stream.getvalue().splitlines() == [
        "training 0/10  rollout  reward 0.5",
        "training 3/10  rollout  reward 0.5  0:28 left",  # 12 s for 3, so 28 s for 7
        "training 10/10  rollout  reward 0.5",
    ]


def test_seconds_left_of_a_resumed_run() -> None:
    stream, seconds = io.StringIO(), iter([0.0, 20.0])
    with Display(stream, lambda: next(seconds)) as display:
        for event in events(6, 8):
            display(event)
    assert stream.getvalue().splitlines()[-1].endswith("0:20 left")  # 10 s each, not 2.5 s


def test_a_new_stage_is_printed_at_once() -> None:
    stream, seconds = io.StringIO(), iter([0.0, 0.1])
    with Display(stream, lambda: next(seconds)) as display:
        display(ProgressEvent("text states"))
        display(ProgressEvent("evaluation", 0, 3))
    assert stream.getvalue() == "text states\nevaluation 0/3\n"


def test_terminal_display_is_alive() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Display(stream) as display:
        display(events(3)[0])
        time.sleep(0.6)
    assert "training 3/10" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (65.4, "1:05"), (3599.7, "1:00:00"), (36061, "10:01:01")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_megabytes_are_whole_only_at_the_end() -> None:
    total = 2_500_000
    told = [megabytes("a", written, total) for written in (0, 999_999, 2_499_999, total)]
    assert [(event.done, event.total) for event in told] == [(0, 3), (0, 3), (2, 3), (3, 3)]
    assert {event.phase for event in told} == {"a"}
