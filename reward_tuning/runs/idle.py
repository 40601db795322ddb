"""Steps that train nothing are told once, with the likely cause; a run of nothing else is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

IDLE_STEPS = 5
"""In a row, before it is told: a hinge may be reached by one batch and not by the next."""


class Scored(Protocol):
    """A judge, as far as its loss goes."""

    @property
    def label(self) -> str:
        """Its name."""

    @property
    def target(self) -> float | None:
        """Where its hinge bends; None for none."""


class IdleWatch:
    """Says once that steps train nothing.

    Attributes:
        cause: Of the last idle step; empty where there was none.
    """

    def __init__(self) -> None:
        self.cause = ""
        self._idle = 0
        self._told = False

    def see(self, idle: bool, cause: Callable[[], str]) -> str | None:
        """Take in a step; return a warning where one is due.

        Args:
            idle: Whether its gradient was zero.
            cause: Finds out why.
        """
        self._idle = self._idle + 1 if idle else 0
        if self._idle == 1:
            self.cause = cause()
        if self._idle < IDLE_STEPS or self._told:
            return None
        self._told = True
        return f"{self._idle} steps in a row trained nothing: the gradient is zero. {self.cause}"


def why_idle(judges: Sequence[Scored], means: Mapping[str, float]) -> str:
    """The likely cause of a gradient that is zero, and the next step.

    Args:
        judges: That are trained on.
        means: `loss` and `reward/LABEL` of the step.
    """
    reached = [
        f"{judge.label} {means[f'reward/{judge.label}']:.4g} of {judge.target:g}"
        for judge in judges
        if judge.target is not None
    ]
    if means["loss"] == 0 and reached:
        return (
            f"The hinge is reached: every clip's score is at its target ({', '.join(reached)}). "
            "Raise rewards.N.target, or set it to null; `reward-tuning calibrate` measures scores"
        )
    names = ", ".join(judge.label for judge in judges)
    return (
        f"The scores of {names} do not change with the frames: look for rounding, comparisons, "
        ".detach() or a constant in a judge of your own"
    )


def nothing_trained(steps: int, bad_steps: int, cause: str) -> str:
    """The text of the refusal to call such a run finished.

    Args:
        steps: Of the run.
        bad_steps: Of these, skipped for NaN or infinity.
        cause: Of the others; empty where it was not seen, as after a resume.
    """
    parts = []
    if bad_steps:
        parts.append(
            f"{bad_steps} were skipped for NaN or infinity (lower train.learning_rate; "
            "generator.dtype float32 in place of a half precision)"
        )
    if steps > bad_steps:
        parts.append(f"{steps - bad_steps} had a gradient of zero")
    told = f"no step of {steps} trained anything: {' and '.join(parts)}; nothing is exported"
    return f"{told}. {cause}" if cause else told
