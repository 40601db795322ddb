"""Replay: flow-matching steps on good clips, in addition to the reward's gradient.

A reward ignores everything it does not measure. The loss that the base was trained with does not:
on clips of the base, or on real ones, it preserves the whole distribution at every noise level,
while `train.anchor` holds the velocity at the states of one rollout. ReFL (arXiv 2304.05977) adds
its pre-training loss, PRFL (arXiv 2511.21541) alternates with supervised steps, T2V-Turbo (arXiv
2405.18750) keeps its distillation loss; each against over-optimisation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from base_model.generator import Condition, Generator
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.tuning.draws import ReplayDraw


@dataclass(frozen=True)
class ReplayClips:
    """Clips to be replayed.

    Attributes:
        prompts: One for each of the n clips; a plain text has no other condition.
        latents: `(n, 16, t, h/8, w/8)` float32 on the CPU, scaled, as a sampler returns them.
    """

    prompts: tuple[str | Prompt, ...]
    latents: Tensor


def velocity_error(
    generator: Generator, latents: Tensor, noise: Tensor, sigmas: Tensor, condition: Condition
) -> Tensor:
    """Compute the flow-matching loss, mean |v((1 - s) x + s e, s) - (e - x)|^2 (arXiv 2210.02747).

    Args:
        generator: The generator, with any adapter that is attached.
        latents: x, `(b, 16, t, h/8, w/8)`, clean and scaled.
        noise: e, the same shape.
        sigmas: s, `(b,)`.
        condition: Condition of the positive branch alone, as in the base's training.

    Returns:
        A scalar, differentiable.
    """
    s = sigmas.to(latents)[:, None, None, None, None]
    velocity = generator.velocity((1.0 - s) * latents + s * noise, sigmas, condition)
    return (velocity - (noise - latents)).square().mean()


def replay_step(
    sampler: ClipSampler,
    clips: ReplayClips,
    draw: ReplayDraw,
    *,
    weight: float,
    share: float = 1.0,
) -> float:
    """Add the gradient of one batch's flow-matching loss to the adapter's `.grad`.

    It makes one model call and frees the graph on return.

    Args:
        sampler: The generator with its adapter attached.
        clips: All clips of the replay.
        draw: Draw of this batch.
        weight: Weight of the loss; 0 measures it without a gradient.
        share: Factor of the gradient: 1 / number of accumulated batches.

    Returns:
        The loss of the batch, without `weight` and `share`.
    """
    generator = sampler.generator
    condition = sampler.condition([clips.prompts[i] for i in draw.clips]).positive
    noise = sampler.noise(draw.noise_seeds)
    latents = clips.latents[list(draw.clips)].to(noise)
    with torch.set_grad_enabled(weight > 0):
        loss = velocity_error(generator, latents, noise, draw.sigmas, condition)
    if weight > 0:
        (weight * share * loss).backward()
    return float(loss.detach())
