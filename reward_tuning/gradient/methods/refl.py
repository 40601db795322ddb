"""ReFL: one late step, the reward on its posterior mean (Xu et al., arXiv 2304.05977)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from reward_tuning.gradient.methods.method import Method
from reward_tuning.gradient.plan import Plan, chain_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class ReFL(Method):
    """ReFL (arXiv 2304.05977): one late step, the reward on its posterior mean.

    ImageReward's code draws the step from the last quarter of its 40; FlowBP and LeapAlign from the
    last 11 of 25, 0.44. The cheapest method: one active step, and no step after it is run.
    """

    kind: Literal["refl"]
    stop_range: float = Field(
        default=0.25,
        gt=0.0,
        le=1.0,
        description="The step lies in this last share of the steps",
    )

    @property
    def not_at_end(self) -> str:
        """The rollout always stops early."""
        return "method refl stops at a step drawn anew each time"

    @property
    def one_plan_only(self) -> str:
        """The stop decides the one active step."""
        return "method refl trains one step, and the stop of the rollout decides which"

    def plan(self, draw: torch.Generator, sigmas: Tensor) -> Plan:
        """Draw the plan: a late step s, uniformly; read x_s - s_s v_s, train v_s alone."""
        import torch

        steps = len(sigmas) - 1
        late = max(1, int(self.stop_range * steps))
        stop = steps - int(torch.randint(1, late + 1, (), generator=draw))
        return Plan(
            steps=steps,
            stop=stop,
            reward_input="posterior_mean",
            active=(stop,),
            weights=chain_weights(sigmas, stop, "posterior_mean"),
        )
