"""Steps and counts, as guards see them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from reward_tuning.runs.guards.guard import StepFacts


@dataclass
class Counts:
    step: int
    bad_steps: int = 0
    bad_in_a_row: int = 0
    idle_steps: int = 0


def facts(grad_norm: float, *, loss: float = 0.5, taken: bool | None = None) -> StepFacts:
    """Step 7, taken where loss and gradient are finite."""
    finite = math.isfinite(loss) and math.isfinite(grad_norm)
    return StepFacts(7, loss, grad_norm, finite if taken is None else taken, lambda: "why")
