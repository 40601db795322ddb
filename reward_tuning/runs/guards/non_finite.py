"""NaN and infinity: the step is skipped, and too many in a row end the run."""

from __future__ import annotations

import math

from reward_tuning.runs.guards.guard import Guard, StepCounts, StepFacts


class NonFinite(Guard):
    """Name what was not finite; end the run after too many such steps in a row.

    Args:
        max_bad_steps: Steps in a row that are tolerated, less one.
    """

    def __init__(self, max_bad_steps: int) -> None:
        self._max_bad_steps = max_bad_steps

    def warn(self, step: StepFacts) -> str | None:
        """Say that a step was skipped, and why."""
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
