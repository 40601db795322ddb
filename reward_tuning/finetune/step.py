"""One batch of flow matching: noise, one model call, loss."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from base_model.generator import Generator
from base_model.training.timesteps import TimestepDensity, draw_levels, level_weight
from base_model.training.velocity_loss import velocity_loss
from reward_tuning.finetune.encoding import EncodedBatch
from reward_tuning.finetune.sections import FlowSection
from reward_tuning.seeds import derive_generator

HELD_OUT_LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Noise levels that the held-out clips are measured at."""


def density(flow: FlowSection) -> TimestepDensity:
    """The recipe's density of noise levels."""
    return TimestepDensity(
        flow.scheme, flow.logit_mean, flow.logit_std, flow.mode_scale, flow.shift
    )


def autocast(generator: Generator, dtype: str | None) -> AbstractContextManager[object]:
    """Matrix products in half precision, where a recipe wants that."""
    if dtype is None:
        return nullcontext()
    return torch.autocast(generator.device.type, getattr(torch, dtype))


def sample_losses(
    generator: Generator,
    batch: EncodedBatch,
    sigmas: Tensor,
    noise: Tensor,
    flow: FlowSection,
    weight: Tensor | None = None,
    *,
    autocast_dtype: str | None = None,
) -> Tensor:
    """The loss of each sample: `(b,)`, differentiable.

    Args:
        generator: Its transformer is called once.
        batch: Of b samples.
        sigmas: `(b,)` in (0, 1].
        noise: Shape of the latents.
        flow: Of the recipe.
        weight: `(b,)`, of the squared error; None is 1.
        autocast_dtype: Of the matrix products; None leaves them as they are.
    """
    latents = batch.latents
    s = sigmas.to(latents)[:, None, None, None, None]
    noise = noise.to(latents)
    with autocast(generator, autocast_dtype):
        velocity = generator.velocity((1.0 - s) * latents + s * noise, sigmas, batch.condition)
    return velocity_loss(
        velocity,
        noise - latents,
        weight,
        motion_share=flow.motion_share,
        most_error=math.inf if flow.most_error is None else flow.most_error,
    )


def training_loss(
    generator: Generator,
    batch: EncodedBatch,
    flow: FlowSection,
    *,
    seed: int,
    number: int,
    autocast_dtype: str | None = None,
) -> Tensor:
    """The loss of a batch, a scalar, from draws named by the seed and the batch's number."""
    count = len(batch.latents)
    sigmas = draw_levels(density(flow), count, derive_generator(seed, "levels", number))
    noise = torch.randn(batch.latents.shape, generator=derive_generator(seed, "noise", number))
    weight = level_weight(flow.scheme, sigmas)
    return sample_losses(
        generator, batch, sigmas, noise, flow, weight, autocast_dtype=autocast_dtype
    ).mean()


@torch.no_grad()
def held_out_loss(
    generator: Generator,
    batch: EncodedBatch,
    flow: FlowSection,
    *,
    seed: int,
    number: int,
    autocast_dtype: str | None = None,
) -> list[float]:
    """The mean loss of a batch at each of `HELD_OUT_LEVELS`, with the same noise every time."""
    found = []
    for level in HELD_OUT_LEVELS:
        draw = derive_generator(seed, "held-out noise", number, round(level * 10))
        noise = torch.randn(batch.latents.shape, generator=draw)
        sigmas = torch.full((len(batch.latents),), level)
        losses = sample_losses(generator, batch, sigmas, noise, flow, autocast_dtype=autocast_dtype)
        found.append(float(losses.mean()))
    return found
