"""AlignProp: the full adjoint through a randomly long tail (Prabhudesai et al., arXiv 2310.03739).

The truncation follows the authors' code: a cut-off that is Gaussian with mean 0.84 N and deviation
0.1 N (42 and 5 of 50 steps), floored and drawn again outside 1 ... N - 1, or uniform there.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from reward_tuning.gradient.methods.draft_k import last_steps_plan
from reward_tuning.gradient.methods.method import Method, Nested, Rescale, SmallestStep
from reward_tuning.gradient.plan import Plan, chain_weights, steps_that_matter

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_CUTOFF = NormalDist(0.84, 0.1)
"""Distribution of the cut-off, as a share of the steps."""


class AlignProp(Method):
    """AlignProp (arXiv 2310.03739): DRaFT-K with K drawn anew for each update.

    `nested: 1` and `rescale: 0` are the paper, with both guidance branches in the gradient; with
    `rescale: 1` short and long tails weigh alike.
    """

    kind: Literal["alignprop"]
    truncation: Literal["uniform", "gaussian"] = Field(
        default="gaussian",
        description="Where the gradient is cut: gaussian around 0.84 of the steps, or uniform",
    )
    nested: Nested = 1.0
    rescale: Rescale = 1.0
    smallest_step: SmallestStep = 0.25

    def plan(self, draw: torch.Generator, sigmas: Tensor) -> Plan:
        """Draw the plan: K = n - cutoff, n the steps that matter; one draw for either truncation.

        The cut-off is the first step that keeps its gradient. `gaussian` draws it from
        N(0.84 n, (0.1 n)^2), floored, again where it lies outside 1 ... n - 1 (which is one draw
        from the normal distribution cut to [1, n)); `uniform` from 1 ... n - 1. So the first step
        is never trained, unless it is the only one.
        """
        import torch

        count = len(steps_that_matter(chain_weights(sigmas), self.smallest_step))
        place = float(torch.rand((), generator=draw, dtype=torch.float64))
        if self.truncation == "uniform":
            share = (1.0 + place * (count - 1)) / count
        else:
            low, high = _CUTOFF.cdf(1.0 / count), _CUTOFF.cdf(1.0)
            share = _CUTOFF.inv_cdf(low + place * (high - low))
        cutoff = min(max(math.floor(share * count), 1), count - 1)
        return last_steps_plan(
            sigmas,
            count - cutoff,
            nested=self.nested,
            rescale=self.rescale,
            smallest_step=self.smallest_step,
        )
