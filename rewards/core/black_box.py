"""Base class of judges outside this process: a server, a program, a hosted model.

Nothing flows back through them, so their scores have no gradient. They are slow and may fail, so
clips are asked for several at a time, failed tries are repeated, and every answer is kept.
"""

from __future__ import annotations

import copy
import json
import math
import threading
import weakref
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rewards.core.answers import Answers, answer_key
from rewards.core.asking import FailedTry, Patience, in_parallel, patiently, quoted
from rewards.core.base import CLIP_FPS, VideoReward, check_input
from rewards.core.pairs import comparisons, scores_of
from rewards.core.shown_clip import Question, ShownClip
from rewards.errors import JudgeUnavailable, RewardError

LARGEST = 1e6
"""Largest size of a score: float32 still tells hundredths apart, and a slip in units is larger."""


_OPEN: weakref.WeakSet[BlackBoxReward] = weakref.WeakSet()


def close_all() -> None:
    """Close every judge of this process, for an exit that runs no finalisers."""
    for judge in list(_OPEN):
        judge.close()


@dataclass(frozen=True)
class Asking:
    """How a judge outside this process is asked.

    Attributes:
        patience: What happens after a failed try.
        parallel: Requests at a time.
        batch: Questions in a request.
        pairwise: Ask which of two clips of a prompt is better, instead of the score of one.
        both_orders: Ask about each pair in both orders.
        fps: Frame rate of the clips that it is shown.
    """

    patience: Patience = Patience()  # noqa: RUF009  # frozen
    parallel: int = 4
    batch: int = 1
    pairwise: bool = False
    both_orders: bool = False
    fps: float = CLIP_FPS

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            RewardError: One is out of its range, or two exclude each other.
        """
        counts = {"parallel": self.parallel, "batch": self.batch}
        for name, count in counts.items():
            if count < 1:
                raise RewardError(f"{name} is {count}; allowed: 1 or more")
        if self.patience.retries < 0:
            raise RewardError(f"retries is {self.patience.retries}; allowed: 0 or more")
        if not 0.0 < self.fps < math.inf:
            raise RewardError(f"fps is {self.fps}; allowed: a rate above 0")
        if self.pairwise and self.batch > 1:
            raise RewardError(
                f"batch is {self.batch}, but a pairwise judge compares one pair in a request; "
                "set batch to 1"
            )
        if self.both_orders and not self.pairwise:
            raise RewardError(
                "both_orders is for pairs of clips; set pairwise to true, or leave it out"
            )


class BlackBoxReward(VideoReward):
    """A judge that is asked for its scores and is not part of this process.

    A clip that was scored before is not asked for again (`Answers`), and one that is in a call
    twice is asked for once. The judge is shown clips rounded to 8 bits. Scores are float32 on the
    CPU, without gradient.

    Args:
        asking: How it is asked.
        reads_text: Whether its answers depend on the text of a call. The attribute of this name
            says only whether clips need prompts: a recipe's `prompt` is sent for all of them.

    Attributes:
        asking: How it is asked.
        answers: What it has answered.
    """

    differentiable = False
    device = torch.device("cpu")
    name = "black box"

    def __init__(self, asking: Asking, *, reads_text: bool = True) -> None:
        self.asking = asking
        self.reads_text = self._sends_text = reads_text
        self.answers = Answers()
        self.scores_alone = not asking.pairwise
        self._closed = threading.Event()
        _OPEN.add(self)

    @property
    def modules(self) -> list[nn.Module]:
        """None: its networks, if any, are elsewhere."""
        return []

    @property
    @abstractmethod
    def about(self) -> dict[str, Any]:
        """Everything in its options that its answers depend on, as JSON values."""

    @property
    @abstractmethod
    def where(self) -> str:
        """Where it is, for messages: "at http://...", without secrets."""

    @property
    @abstractmethod
    def advice(self) -> str:
        """What to do where it does not answer."""

    @abstractmethod
    def ask(self, questions: Sequence[Question]) -> Sequence[Any]:
        """Ask once; called on several threads.

        Args:
            questions: `asking.batch` of them or fewer: each about one clip, or about two where
                `asking.pairwise`.

        Returns:
            An answer to each, unchecked: its score, or its preference for the first clip.

        Raises:
            FailedTry: There was no answer.
            RewardError: A mistake that no other try mends.
        """

    def close(self) -> None:
        """End what it keeps open; nobody that waits for an answer waits any longer."""
        self._closed.set()

    def remember(self, file: Path) -> None:
        """Keep its answers in a file of this process, and use those that are in it already.

        Raises:
            RewardError: The file is damaged or cannot be written (`Answers.remember`).
        """
        self.answers.remember(file)

    def at_rate(self, fps: float) -> BlackBoxReward:
        """Return this judge for clips of `fps` frames per second, with the same answers."""
        if fps == self.asking.fps:
            return self
        view = copy.copy(self)  # shares the answers and whatever it keeps open
        view.asking = replace(self.asking, fps=fps)
        _OPEN.add(view)
        return view

    def __call__(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score clips: `(b, f, 3, H, W)` in [0, 1] and b prompts -> `(b,)` float32 on the CPU.

        Raises:
            RewardError: The input cannot be scored (`check_input`); or the judge compares clips,
                and a prompt has only one.
            JudgeUnavailable: There is no usable answer.
        """
        check_input(frames, prompts)
        chunk = len(frames) if self.chunk is None or self.asking.pairwise else self.chunk
        parts = [slice(start, start + chunk) for start in range(0, len(frames), chunk)]
        return torch.cat([self.score_clips(frames[part], prompts[part]) for part in parts])

    def score_clips(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score clips: `(b, f, 3, H, W)` in [0, 1] and b prompts -> `(b,)` float32 on the CPU."""
        clips = [ShownClip.of(clip, self.asking.fps) for clip in frames]
        texts = list(prompts) if self._sends_text else [""] * len(clips)
        if not self.asking.pairwise:
            questions = [Question((clip,), text) for clip, text in zip(clips, texts, strict=True)]
            self._answer(questions)
            return torch.tensor([self._known(one) for one in questions], dtype=torch.float32)
        both = self.asking.both_orders
        # Of one prompt, even where the judge does not read it.
        self._answer(comparisons(clips, prompts, both_orders=both, who=self.name))
        scores = scores_of(clips, prompts, self._known, both_orders=both)
        return torch.tensor(scores, dtype=torch.float32)

    def _answer(self, questions: Sequence[Question]) -> None:
        """Ask what was never answered, and keep the answers as they come."""
        new = {self._key(one): one for one in questions}
        keys = [key for key in new if self.answers.get(key) is None]
        size = self.asking.batch
        parts = [keys[start : start + size] for start in range(0, len(keys), size)]

        def task(part: Sequence[str], stop: threading.Event) -> list[float]:
            asked = [new[key] for key in part]
            return patiently(
                lambda: self._one_try(asked),
                self.asking.patience,
                stop,
                who=f"the judge {self.name} {self.where}",
                advice=self.advice,
            )

        tasks = [lambda stop, part=part: task(part, stop) for part in parts]
        for place, answers in in_parallel(tasks, self.asking.parallel, self._closed):
            for key, answer in zip(parts[place], answers, strict=True):
                self.answers.add(key, answer)
        if any(self.answers.get(key) is None for key in keys):
            raise JudgeUnavailable(f"the judge {self.name} {self.where} has been closed")

    def _one_try(self, questions: Sequence[Question]) -> list[float]:
        answers = self.ask(questions)
        if len(answers) != len(questions):
            raise FailedTry(f"{len(answers)} answers to {len(questions)} questions")
        return [checked(answer, pairwise=self.asking.pairwise) for answer in answers]

    def _known(self, question: Question) -> float:
        answer = self.answers.get(self._key(question))
        assert answer is not None  # `_answer` has raised otherwise
        return answer

    def _key(self, question: Question) -> str:
        prompt = question.prompt if self._sends_text else ""
        identity = json.dumps(self.about, sort_keys=True)
        return answer_key(identity, [clip.digest for clip in question.clips], prompt)


def checked(answer: Any, *, pairwise: bool = False) -> float:
    """Return an answer as a number.

    Args:
        answer: What came back, of any type.
        pairwise: It is a preference, in [0, 1].

    Raises:
        FailedTry: It is no finite number, or out of range.
    """
    what, low, high = ("preference", 0.0, 1.0) if pairwise else ("score", -LARGEST, LARGEST)
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        raise FailedTry(f"the {what} {quoted(repr(answer))} is no number")
    # Compared as it is: a whole number of JSON may be too large for a float.
    if not (low <= answer <= high):
        raise FailedTry(f"the {what} {quoted(repr(answer))} is not within [{low:g}, {high:g}]")
    return float(answer)
