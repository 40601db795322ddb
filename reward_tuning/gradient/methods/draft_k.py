"""DRaFT-K: the last K steps with the full adjoint (Clark et al., arXiv 2309.17400)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from reward_tuning.gradient.methods.method import Method, Nested, Rescale, SmallestStep
from reward_tuning.gradient.plan import Plan, chain_weights, steps_to_choose_from
from reward_tuning.section import Positive

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class DraftK(Method):
    """DRaFT-K (arXiv 2309.17400): gradient through the last K steps, states included.

    `nested: 1`, `rescale: 0` and `smallest_step: 0` are the paper, with both guidance branches in
    the gradient; a smaller `nested` damps a chain whose gradient explodes.
    """

    kind: Literal["draft_k"]
    active_steps: Positive = Field(description="K, the last steps that receive gradient")
    nested: Nested = 1.0
    rescale: Rescale = 1.0
    smallest_step: SmallestStep = 0.25

    def plan(self, draw: torch.Generator, sigmas: Tensor) -> Plan:
        """Return the plan; nothing is drawn."""
        del draw
        return last_steps_plan(
            sigmas,
            self.active_steps,
            nested=self.nested,
            rescale=self.rescale,
            smallest_step=self.smallest_step,
        )


def last_steps_plan(
    sigmas: Tensor, count: int, *, nested: float = 1.0, rescale: float, smallest_step: float
) -> Plan:
    """Return the plan that trains the last `count` steps that matter.

    V5.1's table ends with a step of |d| = 0.0027 whose gradient is next to nothing, so only steps
    of at least `smallest_step` times the median |d| count. Smaller steps behind them are active as
    well: the adjoint runs through them in any case.

    Raises:
        TuningError: The table has fewer steps that matter.
    """
    weights = chain_weights(sigmas)
    candidates = steps_to_choose_from(weights, count, smallest_step)
    return Plan(
        steps=len(weights),
        stop=len(weights),
        reward_input="end",
        active=tuple(range(candidates[-count], len(weights))),
        weights=weights,
        nested=nested,
        rescale=rescale,
    )
