"""DRaFT: the full adjoint through every step (Clark et al., arXiv 2309.17400)."""

from __future__ import annotations

import torch
from torch import Tensor

from reward_tuning.gradient.plan import Plan, chain_weights


def draft(generator: torch.Generator, sigmas: Tensor, *, nested: float = 1.0) -> Plan:
    """Plan of DRaFT: the reward on the true end, gradient through the whole chain.

    The authors find truncation better: products of N Jacobians explode. `nested` below 1 damps
    them.

    Args:
        generator: unused; every method has this signature.
        sigmas: `(N + 1,)`, falling from 1 to 0.
        nested: 1 is the paper, with both guidance branches in the gradient.
    """
    del generator
    weights = chain_weights(sigmas)
    return Plan(
        steps=len(weights),
        stop=len(weights),
        reward_input="end",
        active=tuple(range(len(weights))),
        weights=weights,
        nested=nested,
    )
