"""Clipping at nearly every step, which hides the size of the gradient from the optimiser."""

from __future__ import annotations

from collections import deque

from reward_tuning.runs.guards.guard import Guard, StepFacts

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
