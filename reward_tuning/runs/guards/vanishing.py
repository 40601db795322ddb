"""A gradient that vanishes, as reward gradients do through a long chain."""

from __future__ import annotations

from reward_tuning.runs.guards.guard import Guard, StepFacts

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
