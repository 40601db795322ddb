"""Flow schedule of EasyAnimateV5.1: the noise levels that a sampler visits.

Convention: `x_sigma = (1 - sigma) * clip + sigma * noise`, so sigma 1 is noise and 0 the clip.
"""

import math

import torch
from torch import Tensor

from base_model.core.family import FAMILY
from base_model.errors import GeneratorError

MU = 1.0
"""Exponent of the dynamic shift in the published pipelines, for every size and length."""

MOST_STEPS = 10_000
"""Ten times the levels of training; a number with too many zeros would exhaust memory at once."""

SMALLEST_TIME = 1 / FAMILY.timesteps
"""Last time before 0 in the table: one training step."""


def shift_time(t: Tensor, mu: float = MU) -> Tensor:
    """Map uniform time to sigma: `e^mu / (e^mu + 1/t - 1)`.

    The exponential time shift of Stable Diffusion 3 (Esser et al. 2024, arXiv:2403.03206) as
    diffusers' `FlowMatchEulerDiscreteScheduler` applies it with `use_dynamic_shifting`.

    Args:
        t: Times in (0, 1], any shape.
        mu: Exponent; 0 is the identity, larger values spend more steps at high noise.

    Returns:
        Sigmas in (0, 1], same shape and dtype.
    """
    return math.exp(mu) / (math.exp(mu) + 1.0 / t - 1.0)


def sigma_table(steps: int, mu: float = MU) -> Tensor:
    """Return the sigmas that a sampler of `steps` Euler steps visits.

    Times run evenly from 1 to 0.001 and are shifted; 0 is appended. With the published `mu = 1` the
    last interval is therefore 0.0027 wide, whatever `steps` is.

    Args:
        steps: Number of Euler steps, 1 to `MOST_STEPS`.
        mu: See `shift_time`.

    Returns:
        `(steps + 1,)` float32 on the CPU, strictly decreasing, first 1, last 0.

    Raises:
        GeneratorError: `steps` is no integer from 1 to `MOST_STEPS`.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise GeneratorError(
            f"The number of sampling steps must be an integer of at least 1, got {steps!r}. "
            "Set sampling.steps, for example to 25."
        )
    if steps > MOST_STEPS:
        raise GeneratorError(
            f"The number of sampling steps must be at most {MOST_STEPS}, got {steps}. Usual values "
            "are 25 to 50."
        )
    times = torch.linspace(1.0, SMALLEST_TIME, steps, dtype=torch.float64)
    sigmas = shift_time(times, mu)
    return torch.cat([sigmas, sigmas.new_zeros(1)]).to(torch.float32)
