"""FlowBP-Sparse: few random steps, late ones likelier, no gradient through states (2606.11075)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from reward_tuning.gradient.methods.method import Method, Rescale, SmallestStep
from reward_tuning.gradient.plan import Plan, chain_weights, steps_to_choose_from
from reward_tuning.section import Positive

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class FlowBPSparse(Method):
    """FlowBP-Sparse (arXiv 2606.11075): random steps, late ones likelier, inputs detached.

    The authors' active_steps, lateness and rescale: FLUX.1 3, 2, 1; SD3.5 4, 1, 0.5; FLUX.2 4, 2,
    0.
    """

    kind: Literal["flowbp_sparse"]
    active_steps: Positive = Field(description="K, steps drawn for each update")
    lateness: float = Field(
        default=2.0, ge=0.0, description="Step i is drawn with weight (i + 1) ** lateness"
    )
    rescale: Rescale = 1.0
    smallest_step: SmallestStep = 0.25

    def plan(self, draw: torch.Generator, sigmas: Tensor) -> Plan:
        """Draw the plan: K distinct steps with p_i ~ (i + 1)^lateness, the reward on the true end.

        They are drawn one after the other, without replacement. Each keeps its Euler weight d_i;
        its input is detached. Steps shorter than `smallest_step` of the median are not drawn.

        Raises:
            TuningError: K exceeds the steps of the table.
        """
        weights = chain_weights(sigmas)
        candidates = steps_to_choose_from(weights, self.active_steps, self.smallest_step)
        return Plan(
            steps=len(weights),
            stop=len(weights),
            reward_input="end",
            active=late_steps(draw, candidates, self.active_steps, self.lateness),
            weights=weights,
            rescale=self.rescale,
        )


def late_steps(
    draw: torch.Generator, candidates: Sequence[int], count: int, lateness: float
) -> tuple[int, ...]:
    """Draw distinct steps one after the other, late ones likelier.

    Args:
        draw: CPU generator; unused for a count of 0.
        candidates: Ascending; the m-th, from 1, has likelihood m^lateness.
        count: 0 to all of them.
        lateness: 0 or more; 0 draws uniformly.

    Returns:
        The drawn steps, ascending.
    """
    import torch

    if count == 0:
        return ()
    likelihood = torch.arange(1.0, len(candidates) + 1, dtype=torch.float64) ** lateness
    drawn = torch.multinomial(likelihood, count, generator=draw)
    return tuple(sorted(candidates[int(m)] for m in drawn))
