"""FlowBP-Bridge: sparse steps on both sides of one step that gradient crosses (2606.11075)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from reward_tuning.gradient.methods.flowbp_sparse import late_steps
from reward_tuning.gradient.methods.method import Method, NestedOfOne, Rescale, SmallestStep
from reward_tuning.gradient.plan import Plan, chain_weights, steps_to_choose_from

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class FlowBPBridge(Method):
    """FlowBP-Bridge (arXiv 2606.11075): sparse steps, gradient through the input of one.

    The authors' active_steps, nested, lateness and rescale: FLUX.1 5, 0.1, 2, 1, the defaults here;
    SD3.5 5, 0.5, 4, 0; FLUX.2 3, 1, 4, 0.5.
    """

    kind: Literal["flowbp_bridge"]
    active_steps: Annotated[int, Field(ge=2)] = Field(
        default=5, description="K, the bridge and steps on both sides"
    )
    nested: NestedOfOne = 0.1
    lateness: float = Field(
        default=2.0,
        ge=0.0,
        description="On each side step m is drawn with weight m ** lateness",
    )
    rescale: Rescale = 1.0
    smallest_step: SmallestStep = 0.25

    def plan(self, draw: torch.Generator, sigmas: Tensor) -> Plan:
        """Draw the plan: K steps, one nested Jacobian, the reward on the true end.

        The bridge j is the later of two steps drawn uniformly. It is active; the others are drawn
        as in FlowBP-Sparse before and behind it, in proportion to the two lengths, at least one
        before. Only v_j lets gradient through its input, `nested` of it, to the steps before. The
        rescale S multiplies the whole gradient of v_j, also the part that crosses it, so the plan's
        nested is S `nested`.

        Raises:
            TuningError: K exceeds the steps of the table.
        """
        import torch

        weights, count = chain_weights(sigmas), self.active_steps
        candidates = steps_to_choose_from(weights, count, self.smallest_step)
        bridge = max(int(i) for i in torch.randperm(len(candidates), generator=draw)[:2])
        before, behind = candidates[:bridge], candidates[bridge + 1 :]
        share = round(count * len(before) / len(candidates))
        # At least one before; steps that one side has no room for go to the other.
        share = min(max(share, 1, count - 1 - len(behind)), len(before), count - 1)
        active = (
            *late_steps(draw, before, share, self.lateness),
            candidates[bridge],
            *late_steps(draw, behind, count - 1 - share, self.lateness),
        )
        plan = Plan(
            steps=len(weights),
            stop=len(weights),
            reward_input="end",
            active=active,
            weights=weights,
            nested=self.nested,
            through=(candidates[bridge],),
            rescale=self.rescale,
        )
        return replace(plan, nested=self.nested * plan.gradient_scale)
