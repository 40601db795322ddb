"""Noise levels in training, and the weights of their losses.

The published trainer draws u in [0, 1] and takes entry floor(1000 u) of a table of 1000 levels that
falls from 1 to 0.001. The table is *unshifted*, whatever shift the sampler uses; u = 0 is pure
noise. The schemes are those of Esser et al. (2403.03206), section 3.1, as diffusers computes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from base_model.core.family import FAMILY
from base_model.sampling.sigmas import shift_time

LEVELS = FAMILY.timesteps
"""Noise levels in the table."""

Scheme = Literal["none", "sigma_sqrt", "logit_normal", "mode", "cosmap"]


@dataclass(frozen=True)
class TimestepDensity:
    """Density and weight of noise levels.

    Attributes:
        scheme: `none`: uniform. `logit_normal` and `mode` are not uniform. `sigma_sqrt` and
            `cosmap` are uniform and weight the loss.
        logit_mean: Mean of the normal variable of `logit_normal`; below 0 favours high noise.
        logit_std: Its standard deviation.
        mode_scale: s of `mode`; above 0 favours the middle of the table.
        shift: mu of `base_model.sampling.sigmas.shift_time`, applied to the drawn level. The
            published trainer has 0; the sampler's own is 1.
    """

    scheme: Scheme = "none"
    logit_mean: float = 0.0
    logit_std: float = 1.0
    mode_scale: float = 1.29
    shift: float = 0.0


def draw_places(density: TimestepDensity, count: int, generator: torch.Generator) -> Tensor:
    """Draw places in the table, u in [0, 1], `(count,)` float32.

    Args:
        density: Density of the levels.
        count: Number of samples.
        generator: Random generator.
    """
    if density.scheme == "logit_normal":
        normal = torch.normal(
            density.logit_mean, density.logit_std, size=(count,), generator=generator
        )
        return torch.sigmoid(normal)
    u = torch.rand(size=(count,), generator=generator)
    if density.scheme == "mode":
        return 1 - u - density.mode_scale * (torch.cos(math.pi * u / 2) ** 2 - 1 + u)
    return u


def level_at(places: Tensor, shift: float = 0.0) -> Tensor:
    """Return the noise level of each place: sigma = 1 - floor(1000 u) / 1000, then shifted.

    Args:
        places: u in [0, 1], any shape. u = 1 takes the last entry; the published code fails there.
        shift: mu; 0 changes nothing.

    Returns:
        Sigmas in [0.001, 1], same shape, float32.
    """
    entries = (places * LEVELS).long().clamp(0, LEVELS - 1)
    sigmas = (LEVELS - entries).to(torch.float32) / LEVELS
    return sigmas if shift == 0.0 else shift_time(sigmas, shift)


def draw_levels(density: TimestepDensity, count: int, generator: torch.Generator) -> Tensor:
    """Draw the noise levels sigma of a batch, `(count,)` float32 in (0, 1]."""
    return level_at(draw_places(density, count, generator), density.shift)


def level_weight(scheme: Scheme, sigmas: Tensor) -> Tensor:
    """Return the weight of each sample's loss, shape of `sigmas`.

    `sigma_sqrt`: 1 / sigma^2. `cosmap`: 2 / (pi (1 - 2 sigma + 2 sigma^2)). Others: 1.
    """
    if scheme == "sigma_sqrt":
        return sigmas**-2.0
    if scheme == "cosmap":
        return 2 / (math.pi * (1 - 2 * sigmas + 2 * sigmas**2))
    return torch.ones_like(sigmas)
