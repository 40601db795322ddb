"""Steps with a gradient of zero: one warning with the likely cause; a run of nothing else fails."""

from __future__ import annotations

from reward_tuning.runs.guards.guard import Guard, StepCounts, StepFacts

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
