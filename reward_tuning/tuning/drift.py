"""How far training has carried the velocity from the base's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from reward_tuning.inputs.prompts import Prompt
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.seeds import derive_seed
from reward_tuning.tuning.evaluation import side

DRIFT_SIGMAS = (0.75, 0.25)
"""Noise levels: one at which a clip's layout forms, one at which its details do."""


@torch.no_grad()
def velocity_drift(
    sampler: ClipSampler,
    adapter: Mapping[str, Tensor] | None,
    base: Mapping[str, Tensor] | None,
    clips: Mapping[int, Tensor],
    prompts: Mapping[int, Prompt],
    *,
    seed: int,
    batch_size: int,
) -> dict[int, float]:
    """Compare the velocities of two sides on the same noised clips.

    Args:
        sampler: The generator with its adapter attached.
        adapter: Tensors of the tuned side; None is the base.
        base: Tensors of the other side; None is the base.
        clips: Index to latents `(16, t, h/8, w/8)` of a clip that the base made.
        prompts: Index to the prompt of the clip.
        seed: Seed of the noise, which the index also decides.
        batch_size: Clips at a time.

    Returns:
        Index to `|v - v_base| / |v_base|` of the branch with the prompt, without guidance: the mean
        over `DRIFT_SIGMAS`. 0 for equal sides.
    """
    generator, found = sampler.generator, dict.fromkeys(clips, 0.0)
    order = list(clips)
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        latents = torch.stack([clips[index] for index in part]).to(generator.device)
        noise = sampler.noise([derive_seed(seed, "drift", index) for index in part])
        condition = sampler.condition([prompts[index] for index in part]).positive
        for sigma in DRIFT_SIGMAS:
            x = (1.0 - sigma) * latents + sigma * noise.to(latents.device)
            velocities = []
            for tensors in (base, adapter):
                with sampler.shown_on(), side(generator.transformer, tensors):
                    velocities.append(generator.velocity(x, sigma, condition).flatten(1))
            off = (velocities[1] - velocities[0]).norm(dim=1) / velocities[0].norm(dim=1)
            for index, value in zip(part, off.tolist(), strict=True):
                found[index] += value / len(DRIFT_SIGMAS)
    return found


def mean_drift(found: Sequence[Mapping[int, float]]) -> float | None:
    """Return the mean over the clips of all processes; None where there are none."""
    values = {index: value for part in found for index, value in part.items()}
    return sum(values[index] for index in sorted(values)) / len(values) if values else None
