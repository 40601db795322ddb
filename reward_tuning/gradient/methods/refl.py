"""ReFL: one late step, the reward on its posterior mean (Xu et al., arXiv 2304.05977)."""

from __future__ import annotations

import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.gradient.plan import Plan, chain_weights


def refl(generator: torch.Generator, sigmas: Tensor, *, stop_range: float = 0.25) -> Plan:
    """Plan of ReFL: stop at a late step s drawn uniformly, read x_s - s_s v_s, train v_s alone.

    ImageReward's code draws s from the last quarter of its 40 steps. The cheapest method: one
    active step, and no step after it is run.

    Args:
        generator: CPU generator; one draw.
        sigmas: `(N + 1,)`, falling from 1 to 0.
        stop_range: share of the steps, counted from the end, that s is drawn from; in (0, 1].
            FlowBP and LeapAlign take the last 11 of 25, 0.44.

    Raises:
        TuningError: the share is out of range.
    """
    steps = len(sigmas) - 1
    if not 0.0 < stop_range <= 1.0:
        raise TuningError(f"method.stop_range is {stop_range}; allowed is above 0 up to 1")
    late = max(1, int(stop_range * steps))
    stop = steps - int(torch.randint(1, late + 1, (), generator=generator))
    return Plan(
        steps=steps,
        stop=stop,
        reward_input="posterior_mean",
        active=(stop,),
        weights=chain_weights(sigmas, stop, "posterior_mean"),
    )
