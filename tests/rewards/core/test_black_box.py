"""Judges outside this process: what they are asked, how often, and what is kept."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rewards import RewardError
from rewards.core.asking import FailedTry, Patience
from rewards.core.black_box import LARGEST, Asking, BlackBoxReward, checked, close_all
from rewards.core.shown_clip import Question
from rewards.errors import JudgeUnavailable
from tests.rewards.judge_server import Waits, grey_clips


class Levels(BlackBoxReward):
    """Scores a clip by its first level; keeps what it was asked."""

    def __init__(
        self, asking: Asking, failures: int = 0, version: int = 1, *, reads_text: bool = True
    ) -> None:
        super().__init__(asking, reads_text=reads_text)
        self.asked: list[list[tuple[tuple[int, ...], str, float]]] = []
        self.failures = failures
        self.version = version
        self.lock = threading.Lock()
        self.replies: list[Sequence[Any]] = []

    @property
    def about(self) -> dict[str, Any]:
        return {"version": self.version, "fps": self.asking.fps}

    @property
    def where(self) -> str:
        return "in this test"

    @property
    def advice(self) -> str:
        return "Look at the test"

    def ask(self, questions: Sequence[Question]) -> Sequence[Any]:
        with self.lock:
            self.asked.append(
                [
                    (
                        tuple(int(clip.frames.flat[0]) for clip in one.clips),
                        one.prompt,
                        one.clips[0].fps,
                    )
                    for one in questions
                ]
            )
            if self.failures:
                self.failures -= 1
                raise FailedTry("broken")
            if self.replies:
                return self.replies.pop(0)
        if self.asking.pairwise:
            return [float(q.clips[0].frames.mean() > q.clips[1].frames.mean()) for q in questions]
        return [float(one.clips[0].frames.flat[0]) / 255 for one in questions]


ONE = Asking(parallel=1)


def test_scores_are_plain_float32_on_the_cpu() -> None:
    judge = Levels(ONE)
    frames = grey_clips(51 / 255, 102 / 255).requires_grad_()
    scores = judge(frames, ["a", "b"])
    assert scores.tolist() == pytest.approx([0.2, 0.4], abs=1e-7)
    assert (scores.dtype, scores.device.type, scores.requires_grad) == (torch.float32, "cpu", False)
    assert judge.modules == []
    with pytest.raises(RewardError, match="expected \\[0, 1\\]"):
        judge(frames * 3, ["a", "b"])


def test_an_answer_is_asked_for_once_for_each_clip_and_prompt() -> None:
    judge = Levels(ONE)
    frames = grey_clips(0.2, 0.4, 0.2, 0.2)
    first = judge(frames, ["a", "a", "a", "b"])
    assert sorted(question for (question,) in judge.asked) == [
        ((51,), "a", 8.0),
        ((51,), "b", 8.0),
        ((102,), "a", 8.0),
    ]
    assert first.tolist() == pytest.approx([0.2, 0.4, 0.2, 0.2], abs=1e-7)
    assert judge(frames + 1e-6, ["a", "a", "a", "b"]).tolist() == first.tolist()
    assert len(judge.asked) == 3
    judge.at_rate(24.0)(frames[:1], ["a"])
    assert judge.asked[3:] == [[((51,), "a", 24.0)]]
    assert judge.at_rate(8.0) is judge


def test_a_judge_that_reads_no_text_is_not_asked_for_each_prompt() -> None:
    judge = Levels(ONE, reads_text=False)
    judge(grey_clips(0.2, 0.2), ["a", "b"])
    assert judge.asked == [[((51,), "", 8.0)]]


def test_batches_and_chunks() -> None:
    judge = Levels(replace(ONE, batch=2))
    frames, prompts = grey_clips(0.2, 0.4, 0.6, 0.8, 1.0), ["x"] * 5
    scores = judge(frames, prompts)
    assert [len(one) for one in judge.asked] == [2, 2, 1]
    again = Levels(replace(ONE, batch=2))
    again.chunk = 3
    assert torch.equal(again(frames, prompts), scores)
    assert [len(one) for one in again.asked] == [2, 1, 2]


def test_a_failed_try_is_repeated_and_a_bad_answer_is_one() -> None:
    waits = Waits()
    judge = Levels(replace(ONE, patience=waits.patience(7)), failures=1)
    bad: list[Sequence[Any]] = [["0.5"], [None], [True], [math.nan], [[0.5]], [0.5, 0.5]]
    judge.replies = list(bad)
    assert judge(grey_clips(0.2), ["a"]).tolist() == pytest.approx([0.2], abs=1e-7)
    assert len(judge.asked) == 8
    assert waits.seconds == [1, 2, 4, 8, 16, 32, 60]


def test_answers_that_came_before_a_failure_are_kept(tmp_path: Path) -> None:
    judge = Levels(replace(ONE, patience=Waits().patience(0)))
    judge.name = "levels"
    judge.remember(tmp_path / "a.jsonl")
    judge.replies = [[0.25], [0.5], ["no"]]
    frames, prompts = grey_clips(0.2, 0.4, 0.6, 0.8), ["a"] * 4
    told = r"the judge levels in this test gave no usable answer in one try: the score 'no' is no"
    with pytest.raises(JudgeUnavailable, match=told):
        judge(frames, prompts)
    assert len(judge.asked) == 3
    later = Levels(ONE)
    later.remember(tmp_path / "a.jsonl")
    assert later(frames, prompts).tolist() == pytest.approx([0.25, 0.5, 0.6, 0.8], abs=1e-7)
    assert len(later.asked) == 2
    other = Levels(ONE, version=2)
    other.remember(tmp_path / "a.jsonl")
    other(frames, prompts)
    assert len(other.asked) == 4


def test_pairs_are_asked_for_once_and_scored_around_0() -> None:
    judge = Levels(replace(ONE, pairwise=True))
    frames = grey_clips(0.2, 0.8, 0.4)
    scores = judge(frames, ["a"] * 3)
    assert scores.tolist() == [-0.5, 0.5, 0.0]
    assert len(judge.asked) == 3
    judge.chunk = 1  # would leave nothing to compare with
    assert torch.equal(judge(frames.flip(0), ["a"] * 3), scores.flip(0))
    assert len(judge.asked) == 3
    judge.replies = [[1.5]] * 9
    judge.asking = replace(judge.asking, patience=Waits().patience(0))
    with pytest.raises(JudgeUnavailable, match=r"preference 1.5 is not within \[0, 1\]"):
        judge(grey_clips(0.3, 0.9), ["a"] * 2)
    with pytest.raises(RewardError, match="'b' has one clip"):
        judge(frames, ["a", "a", "b"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parallel": 0}, "parallel is 0; allowed: 1 or more"),
        ({"batch": 0}, "batch is 0"),
        ({"patience": Patience(-1)}, "retries is -1; allowed: 0 or more"),
        ({"fps": 0.0}, "fps is 0.0"),
        ({"batch": 2, "pairwise": True}, "batch is 2, but a pairwise judge"),
        ({"both_orders": True}, "both_orders is for pairs"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RewardError, match=message):
        Asking(**options)


def test_what_counts_as_an_answer() -> None:
    assert checked(3) == 3.0
    assert type(checked(3)) is float
    assert checked(-LARGEST) == -LARGEST
    for wrong in (10**400, LARGEST * 1.01, math.inf, math.nan, False, "1", None):
        with pytest.raises(FailedTry):
            checked(wrong)
    for wrong in (-0.01, 1.01):
        with pytest.raises(FailedTry):
            checked(wrong, pairwise=True)


def test_all_judges_are_closed_at_once() -> None:
    judges = [Levels(ONE), Levels(ONE).at_rate(24.0)]
    close_all()
    for judge in judges:
        with pytest.raises(JudgeUnavailable, match="has been closed"):
            judge(grey_clips(0.2), ["a"])


def test_a_judge_that_is_closed_keeps_nobody_waiting() -> None:
    judge = Levels(Asking(Patience(9, first=50.0)), failures=9)
    found: list[BaseException] = []

    def ask() -> None:
        try:
            judge(grey_clips(0.2, 0.3), ["a", "a"])
        except JudgeUnavailable as error:
            found.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not judge.asked:
        time.sleep(0.01)
    judge.close()
    thread.join(10)
    assert not thread.is_alive()
    assert len(found) == 1
