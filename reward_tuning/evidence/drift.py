"""Drift: how far an adapter carries the velocity from the base's."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from reward_tuning.inputs.prompts import Prompt
from reward_tuning.lora.adapter import scaled
from reward_tuning.sampling.sampler import ClipSampler

SIGMAS = (0.75, 0.25)
"""Noise levels: one at which a clip's layout forms, one at which its details do."""


@torch.no_grad()
def relative_drift(
    sampler: ClipSampler,
    strength: float,
    clips: Tensor,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
) -> list[float]:
    """Compare the velocities of base and adapter on the same noised clips.

    Args:
        sampler: The generator with the adapter attached.
        strength: Factor of its effect.
        clips: Latents `(b, 16, t, h/8, w/8)` of clips that the base made.
        prompts: Their b prompts.
        seeds: Seeds of the noise.

    Returns:
        `|v - v_base| / |v_base|` of each clip, of the branch with the prompt and without guidance:
        the mean over `SIGMAS`. 0 for a side without effect.
    """
    generator = sampler.generator
    noise = sampler.noise(seeds)
    condition = sampler.condition(prompts).positive
    clips = clips.to(noise)
    total = torch.zeros(len(clips), device=noise.device)
    for sigma in SIGMAS:
        x = (1.0 - sigma) * clips + sigma * noise
        with at_strength(sampler, 0.0):
            base = generator.velocity(x, sigma, condition).flatten(1)
        with at_strength(sampler, strength):
            tuned = generator.velocity(x, sigma, condition).flatten(1)
        total += (tuned - base).norm(dim=1) / base.norm(dim=1)
    found: list[float] = (total / len(SIGMAS)).tolist()
    return found


def at_strength(sampler: ClipSampler, strength: float) -> AbstractContextManager[None]:
    """Return a context in which the attached adapter has a strength; 0 is the base, bit for bit."""
    return scaled(sampler.generator.transformer, strength)
