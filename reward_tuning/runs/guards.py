"""Guards: rules that watch a training's steps; each warns, or ends the run."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from reward_tuning.errors import TuningError
from reward_tuning.schema.loop_section import LoopSection


class EndedByGuard(TuningError):  # noqa: N818 - what has happened
    """A guard ends or rejects a run; every process decides so at the same point."""


@dataclass(frozen=True)
class StepFacts:
    """One optimiser step, as a guard sees it.

    Attributes:
        step: Number of the step, counted from 1.
        loss: Mean loss over all batches and processes.
        grad_norm: Norm of the whole gradient, before clipping.
        taken: Loss and gradient were finite, so the optimiser took the step.
        why_zero: Explain a gradient of zero; called only where it is needed.
    """

    step: int
    loss: float
    grad_norm: float
    taken: bool
    why_zero: Callable[[], str]

    @property
    def idle(self) -> bool:
        """The step was taken, with a gradient of exactly zero."""
        return self.taken and self.grad_norm == 0


class StepCounts(Protocol):
    """Counts of a run's steps, and of those that changed nothing."""

    step: int
    bad_steps: int
    bad_in_a_row: int
    idle_steps: int


class Guard:
    """A rule over the steps of a run; a subclass overrides the methods it needs.

    A guard may remember earlier steps. It is not part of a checkpoint, so a resumed run starts with
    a fresh one; what must survive a resume belongs in `StepCounts`.
    """

    def warn(self, step: StepFacts) -> str | None:
        """Take in a step, and return a warning where one is due."""
        del step
        return None

    def stop(self, counts: StepCounts) -> str | None:
        """Return the reason to end the run after this step, once its row is written."""
        del counts
        return None

    def reject(self, counts: StepCounts) -> str | None:
        """Return the reason why a run that made all its steps must not be exported."""
        del counts
        return None


class NonFinite(Guard):
    """Name what was not finite; end the run after too many such steps in a row.

    Args:
        max_bad_steps: Number of bad steps in a row that ends the run.
    """

    def __init__(self, max_bad_steps: int) -> None:
        self._max_bad_steps = max_bad_steps

    def warn(self, step: StepFacts) -> str | None:
        """Report a skipped step, with the value that was not finite."""
        return None if step.taken else f"step {step.step} skipped: {nonfinite_name(step)}"

    def stop(self, counts: StepCounts) -> str | None:
        """Give up after `max_bad_steps` bad steps in a row."""
        if counts.bad_in_a_row < self._max_bad_steps:
            return None
        return (
            f"{counts.bad_in_a_row} steps in a row (up to step {counts.step}) gave NaN or infinity "
            f"and were skipped; train.max_bad_steps allows {self._max_bad_steps}. Lower "
            "train.learning_rate, or use generator.dtype bfloat16 or float32 instead of float16. "
            "Start a new run: the last checkpoint of this one may already be diverging"
        )


def nonfinite_name(step: StepFacts) -> str:
    """Name the value that is not finite: the loss, or else the gradient's norm."""
    if not math.isfinite(step.loss):
        return f"the loss is {step.loss}"
    return f"the gradient's norm is {step.grad_norm}"


VANISHING = 1e-3
"""Norm before clipping; the published script reports it for its own stalled runs."""
VANISHING_STEPS = 5
"""In a row before the warning: a single batch may have a small gradient by chance."""


class Vanishing(Guard):
    """Warn once that the gradient vanishes."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self._warned = False

    def warn(self, step: StepFacts) -> str | None:
        """Warn after `VANISHING_STEPS` small gradients in a row."""
        if not step.taken:
            return None
        # A gradient of exactly zero is the subject of the guard `Idle`.
        self._in_a_row = self._in_a_row + 1 if 0 < step.grad_norm < VANISHING else 0
        if self._in_a_row != VANISHING_STEPS or self._warned:
            return None
        self._warned = True
        return (
            f"the gradient vanishes: {VANISHING_STEPS} steps in a row under {VANISHING:g} "
            "before clipping. Set method.rescale=1, use more or earlier active steps, or raise "
            "rewards.*.weight; a hinge (rewards.*.target) that is reached also gives no gradient"
        )


CLIPPING_SHARE, CLIPPING_STEPS = 0.95, 20
"""Share of so many recent steps; 20 is the fewest in which 95 % allows for no exception."""


class Clipping(Guard):
    """Warn once that nearly every step is clipped.

    Args:
        max_grad_norm: Limit of the gradient's norm; None for no clipping.
    """

    def __init__(self, max_grad_norm: float | None) -> None:
        self._limit = max_grad_norm
        self._clipped: deque[bool] = deque(maxlen=CLIPPING_STEPS)
        self._warned = False

    def warn(self, step: StepFacts) -> str | None:
        """Warn where more than `CLIPPING_SHARE` of the recent steps were clipped."""
        if not step.taken:
            return None
        self._clipped.append(self._limit is not None and step.grad_norm > self._limit)
        full = len(self._clipped) == CLIPPING_STEPS
        if not full or sum(self._clipped) <= CLIPPING_SHARE * CLIPPING_STEPS or self._warned:
            return None
        self._warned = True
        return (
            f"more than {CLIPPING_SHARE:.0%} of the last {CLIPPING_STEPS} steps were clipped "
            f"to train.max_grad_norm = {self._limit:g}, so the step length no longer follows "
            "the gradient. Raise max_grad_norm, or lower method.nested or rewards.*.weight"
        )


IDLE_STEPS = 5
"""Idle steps in a row before the warning: one batch may reach a hinge that the next one misses."""


class Idle(Guard):
    """Warn once about steps that train nothing, and reject a run that trained nothing at all."""

    def __init__(self) -> None:
        self._cause = ""
        self._in_a_row = 0
        self._warned = False

    def warn(self, step: StepFacts) -> str | None:
        """Warn after `IDLE_STEPS` idle steps in a row, once a run."""
        self._in_a_row = self._in_a_row + 1 if step.idle else 0
        if self._in_a_row == 1:
            self._cause = step.why_zero()
        if self._in_a_row < IDLE_STEPS or self._warned:
            return None
        self._warned = True
        return (
            f"{self._in_a_row} steps in a row trained nothing: the gradient is zero. {self._cause}"
        )

    def reject(self, counts: StepCounts) -> str | None:
        """Reject a run whose every step was skipped or had a gradient of zero."""
        steps, bad_steps = counts.step, counts.bad_steps
        if steps != bad_steps + counts.idle_steps:
            return None
        parts = []
        if bad_steps:
            parts.append(
                f"{bad_steps} were skipped for NaN or infinity (lower train.learning_rate, or use "
                "generator.dtype float32 instead of half precision)"
            )
        if steps > bad_steps:
            parts.append(f"{steps - bad_steps} had a gradient of zero")
        text = f"no step of {steps} trained anything: {' and '.join(parts)}; nothing is exported"
        # After a resume the cause may be unknown: no idle step has been seen since.
        return f"{text}. {self._cause}" if self._cause else text


def finetune_guards(train: LoopSection) -> list[Guard]:
    """Guards of a fine-tuning, in the order of their warnings."""
    return [NonFinite(train.max_bad_steps), Idle()]


def reward_guards(train: LoopSection) -> list[Guard]:
    """Guards of a reward tuning: its gradient comes through a chain that may vanish or explode."""
    return [
        NonFinite(train.max_bad_steps),
        Vanishing(),
        Clipping(train.max_grad_norm),
        Idle(),
    ]
