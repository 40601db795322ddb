"""The interface of a guard, and what it sees of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


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
    """How many steps a run has made, and how many of them changed nothing."""

    step: int
    bad_steps: int
    bad_in_a_row: int
    idle_steps: int


class Guard:
    """A rule over the steps of a run; a subclass overrides the methods it needs.

    A guard may remember earlier steps. It is not part of a checkpoint, so a resumed run starts with
    a fresh one; what must survive a resume belongs into `StepCounts`.
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
