"""DRaFT-K: the last K steps with the full adjoint (Clark et al., arXiv 2309.17400)."""

from __future__ import annotations

import torch
from torch import Tensor

from reward_tuning.gradient.plan import Plan, chain_weights, steps_to_choose_from


def draft_k(
    generator: torch.Generator,
    sigmas: Tensor,
    *,
    active_steps: int,
    nested: float = 1.0,
    rescale: float = 1.0,
    smallest_step: float = 0.25,
) -> Plan:
    """Plan of DRaFT-K: the reward on the true end, gradient through the last K steps that matter.

    V5.1's table ends with a step of |d| = 0.0027 whose gradient is next to nothing, so K counts
    only steps of at least `smallest_step` times the median |d|. Smaller steps behind them are
    active as well: the adjoint runs through them in any case.

    Args:
        generator: unused; every method has this signature.
        sigmas: `(N + 1,)`, falling from 1 to 0.
        active_steps: K, at least 1.
        nested: 1 is the paper, with both guidance branches in the gradient; less damps a chain
            whose gradient explodes.
        rescale: see `Plan`; 0 is the paper.
        smallest_step: relative to the median |d|; 0 counts every step, as the paper does.

    Raises:
        TuningError: more steps asked for than there are.
    """
    del generator
    weights = chain_weights(sigmas)
    candidates = steps_to_choose_from(weights, active_steps, smallest_step)
    return Plan(
        steps=len(weights),
        stop=len(weights),
        reward_input="end",
        active=tuple(range(candidates[-active_steps], len(weights))),
        weights=weights,
        nested=nested,
        rescale=rescale,
    )
