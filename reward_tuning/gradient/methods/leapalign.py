"""LeapAlign: two leaps over the chain, one gradient between them (arXiv 2604.15311)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from reward_tuning.errors import TuningError
from reward_tuning.gradient.leaps import Leap
from reward_tuning.gradient.methods.method import Method, NestedOfOne
from reward_tuning.gradient.plan import Plan, chain_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LeapFloor = Annotated[
    float | None,
    Field(
        gt=0.0,
        description="tau: clips whose leaps stay near the rollout weigh more, up to 1 / (2 tau); "
        "null = equal weights",
    ),
]


class LeapAlign(Method):
    """LeapAlign (arXiv 2604.15311): two leaps over the chain, some gradient between them.

    The paper has `nested: 0.3` for HPS, 0.1 for PickScore and HPSv3.
    """

    kind: Literal["leapalign"]
    nested: NestedOfOne = 0.3
    leap_floor: LeapFloor = 0.1

    @property
    def weights_clips(self) -> bool:
        """With a floor."""
        return self.leap_floor is not None

    def plan(self, draw: torch.Generator, sigmas: Tensor) -> Plan:
        """Draw the plan: two distinct steps k < j, uniformly; leaps k -> j -> N.

        In the gradient x_j is x_k + (s_j - s_k) v_k and the end is x_j - s_j v_j, and `nested` of
        it flows through the input of v_j. The values of both stay those of the rollout.

        Raises:
            TuningError: A table of one step.
        """
        import torch

        weights = chain_weights(sigmas)
        steps = len(weights)
        if steps < 2:
            raise TuningError("sampling.steps is 1; leapalign needs 2 or more, one for each leap")
        k, j = sorted(int(i) for i in torch.randperm(steps, generator=draw)[:2])
        strides = {k: float(sigmas[j] - sigmas[k]), j: -float(sigmas[j])}
        return Plan(
            steps=steps,
            stop=steps,
            reward_input="end",
            active=(k, j),
            weights=tuple(strides.get(i, 0.0) for i in range(steps)),
            nested=self.nested,
            through=(j,),
            leaps=(Leap(k, j, (k,), (strides[k],)), Leap(j, steps, (j,), (strides[j],))),
            leap_floor=self.leap_floor,
        )
