"""DRTune: K spaced steps, no gradient through the denoiser's input (Wu et al., arXiv 2405.00760).

There is no official code; the spacing and the early stop follow the re-implementation in FlowBP
(arXiv 2606.11075).
"""

from __future__ import annotations

import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.gradient.plan import Plan, RewardInput, chain_weights, steps_that_matter


def drtune(
    generator: torch.Generator,
    sigmas: Tensor,
    *,
    active_steps: int,
    early_stop: bool = True,
    stop_range: float = 0.4,
    rescale: float = 1.0,
    smallest_step: float = 0.25,
) -> Plan:
    """Plan of DRTune: K equally spaced steps with a random offset, and an early stop.

    With early stop, s = N - U{1 ... m}, m = stop_range N rounded, and the reward reads
    x_s - s_s v_s. The executed steps are 0 ... s; the stop step s is one of them and becomes active
    when the spacing lands on it. Without, the reward reads x_N and all steps are executed. Steps
    shorter than `smallest_step` of the median are left out of the spacing: alone they are no
    gradient.

    Args:
        generator: CPU generator; one draw for the stop, one for the offset, always both.
        sigmas: `(N + 1,)`, falling from 1 to 0.
        active_steps: K, at least 1 (the paper 5, FlowBP 3).
        early_stop: off reads the true end (the better reward input by LeapAlign's ablation).
        stop_range: m / N in (0, 1); 0.4 in FlowBP. m is at least 1.
        rescale: see `Plan`; 0 is the paper.
        smallest_step: relative to the median weight; 0 keeps every step.

    Raises:
        TuningError: a range out of bounds, or more steps asked for than the earliest stop leaves.
    """
    steps = len(sigmas) - 1
    if not 0.0 < stop_range < 1.0:
        raise TuningError(f"method.stop_range is {stop_range}; allowed is above 0 and below 1")
    m = max(1, round(stop_range * steps))
    back = int(torch.randint(1, m + 1, (), generator=generator))
    jitter = float(torch.rand((), generator=generator, dtype=torch.float64))

    reward_input: RewardInput = "posterior_mean" if early_stop else "end"
    # The worst draw decides, so that a plan never fails in the middle of a run.
    for stop in range(steps - m, steps) if early_stop else [steps]:
        fewest = len(steps_that_matter(chain_weights(sigmas, stop, reward_input), smallest_step))
        if not 1 <= active_steps <= fewest:
            raise TuningError(
                f"method.active_steps is {active_steps}; with {steps} sampling steps"
                + (f" and a stop at step {stop}" if early_stop else "")
                + f" allowed is 1 ... {fewest}"
                + ("; lower method.stop_range or take more sampling steps" if early_stop else "")
            )

    stop = steps - back if early_stop else steps
    weights = chain_weights(sigmas, stop, reward_input)
    candidates = steps_that_matter(weights, smallest_step)
    stride = len(candidates) // active_steps
    offsets = len(candidates) - (active_steps - 1) * stride
    offset = int(jitter * offsets)
    return Plan(
        steps=steps,
        stop=stop,
        reward_input=reward_input,
        active=tuple(candidates[offset + k * stride] for k in range(active_steps)),
        weights=weights,
        nested=0.0,
        rescale=rescale,
    )
