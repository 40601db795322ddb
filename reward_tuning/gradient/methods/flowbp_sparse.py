"""FlowBP-Sparse: few random steps, late ones likelier, no gradient through states (2606.11075)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.gradient.plan import Plan, chain_weights, steps_to_choose_from


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

    The authors' active_steps, lateness and rescale: FLUX.1 3, 2, 1; SD3.5 4, 1, 0.5; FLUX.2 4, 2,
    0.

    Args:
        generator: CPU generator.
        sigmas: `(N + 1,)`, falling from 1 to 0.
        active_steps: K, at least 1.
        lateness: exponent of the draw; 0 draws uniformly.
        rescale: see `Plan`.
        smallest_step: relative to the median |d|; shorter steps are not drawn.

    Raises:
        TuningError: more steps asked for than there are, or a negative exponent.
    """
    weights = chain_weights(sigmas)
    candidates = steps_to_choose_from(weights, active_steps, smallest_step)
    return Plan(
        steps=len(weights),
        stop=len(weights),
        reward_input="end",
        active=late_steps(generator, candidates, active_steps, lateness),
        weights=weights,
        rescale=rescale,
    )


def late_steps(
    generator: torch.Generator, candidates: Sequence[int], count: int, lateness: float
) -> tuple[int, ...]:
    """Draw distinct steps one after the other, late ones likelier.

    Args:
        generator: CPU generator; without a draw for a count of 0.
        candidates: ascending; the m-th, from 1, has likelihood m^lateness.
        count: 0 to all of them.
        lateness: 0 draws uniformly.

    Returns:
        The drawn steps, ascending.

    Raises:
        TuningError: a negative exponent.
    """
    if lateness < 0.0:
        raise TuningError(f"method.lateness is {lateness}; allowed is 0 or more")
    if count == 0:
        return ()
    likelihood = torch.arange(1.0, len(candidates) + 1, dtype=torch.float64) ** lateness
    drawn = torch.multinomial(likelihood, count, generator=generator)
    return tuple(sorted(candidates[int(m)] for m in drawn))
