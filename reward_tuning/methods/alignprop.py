"""AlignProp: the full adjoint through a randomly long tail (Prabhudesai et al., arXiv 2310.03739).

The truncation follows the authors' code: uniform, or Gaussian with mean 0.84 N and deviation 0.1 N
(42 and 5 of 50 steps).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.methods.draft_k import draft_k
from reward_tuning.plan import Plan, chain_weights, steps_that_matter

Truncation = Literal["uniform", "gaussian"]


def alignprop(
    generator: torch.Generator,
    sigmas: Tensor,
    *,
    truncation: Truncation = "uniform",
    nested: float = 1.0,
    rescale: float = 1.0,
    smallest_step: float = 0.25,
) -> Plan:
    """Plan of AlignProp: DRaFT-K with K drawn anew for each update.

    `uniform` draws K from 1 ... n, n the steps that matter. `gaussian` draws the step from which
    the gradient is kept from N(0.84 n, (0.1 n)^2), rounded, so that K = n - cutoff, held within
    1 ... n.

    Args:
        generator: CPU generator; two draws whichever truncation it is.
        sigmas: `(N + 1,)`, falling from 1 to 0.
        truncation: the distribution of K.
        nested: 1 is the paper, with both guidance branches in the gradient.
        rescale: see `Plan`; 0 is the paper. At 1 short and long tails weigh alike.
        smallest_step: relative to the median |d|; 0 counts every step, as the paper does.

    Raises:
        TuningError: no such truncation.
    """
    count = len(steps_that_matter(chain_weights(sigmas), smallest_step))
    uniform = float(torch.rand((), generator=generator, dtype=torch.float64))
    normal = float(torch.randn((), generator=generator, dtype=torch.float64))
    match truncation:
        case "uniform":
            active_steps = 1 + int(uniform * count)
        case "gaussian":
            cutoff = round((0.84 + 0.1 * normal) * count)
            active_steps = min(max(count - cutoff, 1), count)
        case _:
            raise TuningError(f"method.truncation is {truncation!r}; allowed are uniform, gaussian")
    return draft_k(
        generator,
        sigmas,
        active_steps=active_steps,
        nested=nested,
        rescale=rescale,
        smallest_step=smallest_step,
    )
