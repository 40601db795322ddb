"""The loss of one batch of flow matching: noise, one model call, loss."""

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
"""Noise levels at which held-out clips are measured: fixed, so that two measurements compare."""


def density(flow: FlowSection) -> TimestepDensity:
    """Return the recipe's density of noise levels."""
    return TimestepDensity(
        flow.scheme, flow.logit_mean, flow.logit_std, flow.mode_scale, flow.shift
    )


def autocast(generator: Generator, dtype: str | None) -> AbstractContextManager[object]:
    """Compute matrix products in half precision within the context, where a recipe asks for it."""
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
    """Return the loss of each sample: `(b,)`, differentiable.

    Args:
        generator: Generator whose transformer is called once.
        batch: A batch of b samples.
        sigmas: Noise levels, `(b,)` in (0, 1].
        noise: eps, of the latents' shape.
        flow: Section of the recipe.
        weight: Weight of the squared error, `(b,)`; None is 1.
        autocast_dtype: Dtype of the matrix products; None leaves it as it is.
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
    """Return the mean loss of a batch, from draws named by the seed and the batch's number."""
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
    """Return the mean loss of a batch at each of `HELD_OUT_LEVELS`, always with the same noise."""
    found = []
    for level in HELD_OUT_LEVELS:
        draw = derive_generator(seed, "held-out noise", number, round(level * 10))
        noise = torch.randn(batch.latents.shape, generator=draw)
        sigmas = torch.full((len(batch.latents),), level)
        losses = sample_losses(generator, batch, sigmas, noise, flow, autocast_dtype=autocast_dtype)
        found.append(float(losses.mean()))
    return found
