"""AlignProp: the full adjoint through a randomly long tail (Prabhudesai et al., arXiv 2310.03739).

The truncation follows the authors' code: a cut-off that is Gaussian with mean 0.84 N and deviation
0.1 N (42 and 5 of 50 steps), floored and drawn again outside 1 ... N - 1, or uniform there.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Literal

import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.gradient.methods.draft_k import draft_k
from reward_tuning.gradient.plan import Plan, chain_weights, steps_that_matter

_CUTOFF = NormalDist(0.84, 0.1)
"""Of the cut-off over the number of steps."""

Truncation = Literal["uniform", "gaussian"]


def alignprop(
    generator: torch.Generator,
    sigmas: Tensor,
    *,
    truncation: Truncation = "gaussian",
    nested: float = 1.0,
    rescale: float = 1.0,
    smallest_step: float = 0.25,
) -> Plan:
    """Plan of AlignProp: DRaFT-K with K drawn anew for each update.

    K = n - cutoff, n the steps that matter; the cut-off is the step from which the gradient is
    kept. `gaussian` draws it from N(0.84 n, (0.1 n)^2), floored, again where it lies outside
    1 ... n - 1 (which is one draw from the normal distribution cut to [1, n)); `uniform` from
    1 ... n - 1. So the first step is never trained, unless it is the only one.

    Args:
        generator: CPU generator; one draw whichever truncation it is.
        sigmas: `(N + 1,)`, falling from 1 to 0.
        truncation: the distribution of K.
        nested: 1 is the paper, with both guidance branches in the gradient.
        rescale: see `Plan`; 0 is the paper. At 1 short and long tails weigh alike.
        smallest_step: relative to the median |d|; 0 counts every step, as the paper does.

    Raises:
        TuningError: no such truncation.
    """
    count = len(steps_that_matter(chain_weights(sigmas), smallest_step))
    place = float(torch.rand((), generator=generator, dtype=torch.float64))
    match truncation:
        case "uniform":
            share = (1.0 + place * (count - 1)) / count
        case "gaussian":
            low, high = _CUTOFF.cdf(1.0 / count), _CUTOFF.cdf(1.0)
            share = _CUTOFF.inv_cdf(low + place * (high - low))
        case _:
            raise TuningError(f"method.truncation is {truncation!r}; allowed are uniform, gaussian")
    cutoff = min(max(math.floor(share * count), 1), count - 1)
    active_steps = count - cutoff
    return draft_k(
        generator,
        sigmas,
        active_steps=active_steps,
        nested=nested,
        rescale=rescale,
        smallest_step=smallest_step,
    )
