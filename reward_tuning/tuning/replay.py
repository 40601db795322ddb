"""Replay: flow-matching steps on clips that are known to be good, beside the reward's gradient.

A reward says nothing of what a clip must keep. The loss that the base was trained with does: on
clips of the base, or on real ones, it holds the whole distribution, at every noise level, where
`train.anchor` holds the velocity at the states of one rollout. ReFL (arXiv 2304.05977) adds its
pre-training loss, PRFL (arXiv 2511.21541) alternates with supervised steps, T2V-Turbo (arXiv
2405.18750) keeps its distillation loss; each as a cure for over-optimisation.
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
        prompts: n of them, one a clip; a plain text follows nothing else.
        latents: `(n, 16, t, h/8, w/8)` float32 on the CPU, scaled: what a sampler ends with.
    """

    prompts: tuple[str | Prompt, ...]
    latents: Tensor


def velocity_error(
    generator: Generator, latents: Tensor, noise: Tensor, sigmas: Tensor, condition: Condition
) -> Tensor:
    """The flow-matching loss, mean |v((1 - s) x + s e, s) - (e - x)|^2 (arXiv 2210.02747).

    Args:
        generator: With whatever adapter is attached.
        latents: x, `(b, 16, t, h/8, w/8)`, clean and scaled.
        noise: e, the same shape.
        sigmas: s, `(b,)`.
        condition: Of the prompts; the positive branch alone, as the base was trained.

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

    Its graph is its own and gone on return: one model call.

    Args:
        sampler: The generator with its adapter attached.
        clips: All of them.
        draw: Of this batch.
        weight: Of the loss; with 0 it is measured without a gradient.
        share: Factor of the gradient: 1 / number of accumulated batches.

    Returns:
        The loss of the batch, neither weighted nor shared.
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
