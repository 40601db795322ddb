"""FlowBP-Sparse: few random steps, late ones likelier, no gradient through states (2606.11075)."""

from __future__ import annotations

import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.plan import Plan, chain_weights, steps_to_choose_from


def flowbp_sparse(
    generator: torch.Generator,
    sigmas: Tensor,
    *,
    active_steps: int,
    lateness: float = 2.0,
    rescale: float = 1.0,
    smallest_step: float = 0.25,
) -> Plan:
    """Plan of FlowBP-Sparse: the reward on the true end, K steps drawn with p_i ~ (i + 1)^lateness.

    Distinct steps, drawn one after the other without replacement. Each gets its Euler weight d_i;
    its input is detached.

    Args:
        generator: CPU generator.
        sigmas: `(N + 1,)`, falling from 1 to 0.
        active_steps: K, at least 1 (3 in the authors' configurations).
        lateness: exponent of the draw; 2 in the authors' code, 0 draws uniformly.
        rescale: see `Plan`; 1 in the authors' configurations.
        smallest_step: relative to the median |d|; shorter steps are not drawn.

    Raises:
        TuningError: more steps asked for than there are, or a negative exponent.
    """
    weights = chain_weights(sigmas)
    candidates = steps_to_choose_from(weights, active_steps, smallest_step)
    if lateness < 0.0:
        raise TuningError(f"method.lateness is {lateness}; allowed is 0 or more")
    likelihood = torch.tensor([(i + 1.0) ** lateness for i in candidates], dtype=torch.float64)
    drawn = torch.multinomial(likelihood, active_steps, generator=generator)
    return Plan(
        steps=len(weights),
        stop=len(weights),
        reward_input="end",
        active=tuple(sorted(candidates[int(i)] for i in drawn)),
        weights=weights,
        rescale=rescale,
    )
