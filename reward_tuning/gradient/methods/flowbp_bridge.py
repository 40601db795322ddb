"""FlowBP-Bridge: sparse steps on both sides of one step that gradient crosses (2606.11075)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.gradient.methods.flowbp_sparse import late_steps
from reward_tuning.gradient.plan import Plan, chain_weights, steps_to_choose_from


def flowbp_bridge(
    generator: torch.Generator,
    sigmas: Tensor,
    *,
    active_steps: int = 5,
    nested: float = 0.1,
    lateness: float = 2.0,
    rescale: float = 1.0,
    smallest_step: float = 0.25,
) -> Plan:
    """Plan of FlowBP-Bridge: the reward on the true end, K steps, one nested Jacobian.

    The bridge j is the later of two steps drawn uniformly. It is active; the others are drawn as in
    FlowBP-Sparse before and behind it, in proportion to the two lengths, at least one before. Only
    v_j lets gradient through its input, `nested` of it, to the steps before. The rescale S
    multiplies the whole gradient of v_j, also what crosses it, so the plan's nested is S `nested`.

    The authors' active_steps, nested, lateness and rescale: FLUX.1 5, 0.1, 2, 1, the defaults here;
    SD3.5 5, 0.5, 4, 0; FLUX.2 3, 1, 4, 0.5.

    Args:
        generator: CPU generator.
        sigmas: `(N + 1,)`, falling from 1 to 0.
        active_steps: K, at least 2.
        nested: alpha, 0 or more.
        lateness: exponent of the draw within each side.
        rescale: see `Plan`.
        smallest_step: relative to the median |d|; shorter steps are not drawn.

    Raises:
        TuningError: fewer than two steps asked for, more than there are, or a negative exponent.
    """
    weights = chain_weights(sigmas)
    if active_steps < 2:
        raise TuningError(
            f"method.active_steps is {active_steps}; flowbp_bridge needs 2 or more, one on each "
            "side of the bridge"
        )
    candidates = steps_to_choose_from(weights, active_steps, smallest_step)
    bridge = max(int(i) for i in torch.randperm(len(candidates), generator=generator)[:2])
    before, behind = candidates[:bridge], candidates[bridge + 1 :]
    share = round(active_steps * len(before) / len(candidates))
    # At least one before; what one side cannot hold goes to the other.
    share = min(max(share, 1, active_steps - 1 - len(behind)), len(before), active_steps - 1)
    active = (
        *late_steps(generator, before, share, lateness),
        candidates[bridge],
        *late_steps(generator, behind, active_steps - 1 - share, lateness),
    )
    plan = Plan(
        steps=len(weights),
        stop=len(weights),
        reward_input="end",
        active=active,
        weights=weights,
        nested=nested,
        through=(candidates[bridge],),
        rescale=rescale,
    )
    return replace(plan, nested=nested * plan.gradient_scale)
