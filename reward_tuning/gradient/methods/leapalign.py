"""LeapAlign: two leaps over the chain, one gradient between them (arXiv 2604.15311)."""

from __future__ import annotations

import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.gradient.leaps import Leap
from reward_tuning.gradient.plan import Plan, chain_weights


def leapalign(
    generator: torch.Generator,
    sigmas: Tensor,
    *,
    nested: float = 0.3,
    leap_floor: float | None = 0.1,
) -> Plan:
    """Plan of LeapAlign: the reward on the true end, gradient through two leaps k -> j -> N.

    Two distinct steps k < j are drawn uniformly. In the gradient x_j is x_k + (s_j - s_k) v_k and
    the end is x_j - s_j v_j, and `nested` of it flows through the input of v_j. In value both stay
    what the rollout found.

    Args:
        generator: CPU generator.
        sigmas: `(N + 1,)`, falling from 1 to 0; N at least 2.
        nested: 0.3 for HPS, 0.1 for PickScore and HPSv3 in the paper; 0 or more.
        leap_floor: tau of the weight of a clip whose leaps stay near the rollout; None = no weight.

    Raises:
        TuningError: fewer than two steps.
    """
    weights = chain_weights(sigmas)
    steps = len(weights)
    if steps < 2:
        raise TuningError("sampling.steps is 1; leapalign needs 2 or more, one for each leap")
    k, j = sorted(int(i) for i in torch.randperm(steps, generator=generator)[:2])
    strides = {k: float(sigmas[j] - sigmas[k]), j: -float(sigmas[j])}
    return Plan(
        steps=steps,
        stop=steps,
        reward_input="end",
        active=(k, j),
        weights=tuple(strides.get(i, 0.0) for i in range(steps)),
        nested=nested,
        through=(j,),
        leaps=(Leap(k, j, (k,), (strides[k],)), Leap(j, steps, (j,), (strides[j],))),
        leap_floor=leap_floor,
    )
