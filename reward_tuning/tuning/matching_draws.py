"""The noise levels and the noise at which clips are matched: of each update, from named seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from base_model.sampling.sigmas import MU, shift_time
from reward_tuning.gradient.methods.matching_method import MatchingMethod
from reward_tuning.schema.recipe import Recipe
from reward_tuning.seeds import derive_generator, derive_seed
from reward_tuning.tuning.draws import clips_a_step


@dataclass(frozen=True)
class Levels:
    """The draws at which one batch is matched in one update.

    Attributes:
        sigmas: `(draws, b)` float32 noise levels in (0, 1).
        noise_seeds: b seeds for each draw.
    """

    sigmas: Tensor
    noise_seeds: tuple[tuple[int, ...], ...]


def draw_levels(
    recipe: Recipe, step: int, accelerator: Accelerator, number: int, update: int
) -> Levels:
    """Draw this rank's levels of one batch.

    Args:
        recipe: Its method matches.
        step: Counted from 1.
        accelerator: Gives this process's rank.
        number: Index of the accumulated batch within the step.
        update: Index of the update on the step's rollouts, from 0.
    """
    method, train = recipe.method, recipe.train
    assert isinstance(method, MatchingMethod)
    alike = train.clips_per_prompt if method.shared_noise else 1
    part = number * accelerator.num_processes + accelerator.process_index
    own = train.batch_size // alike
    count = clips_a_step(train, accelerator) // alike
    units = range(part * own, (part + 1) * own)
    draw = derive_generator(recipe.seed, "matching", "sigmas", step, update)
    sigmas = stratified_levels(draw, count, method.draws, method.sigma_range)
    return Levels(
        sigmas[:, units.start : units.stop].repeat_interleave(alike, dim=1),
        tuple(
            tuple(
                derive_seed(recipe.seed, "matching", "noise", step, update, unit, draw)
                for unit in units
                for _ in range(alike)
            )
            for draw in range(method.draws)
        ),
    )


def stratified_levels(
    draw: torch.Generator, count: int, draws: int, within: tuple[float, float] = (0.0, 1.0)
) -> Tensor:
    """Draw the levels of all batches of one update, `(draws, count)`, as one joint draw.

    They have the density of the base's training (uniform in time, mu = 1) in the range, stratified
    over the whole update, and the levels of each clip, or of clips that share theirs, lie one in
    each `draws`-th part of it.

    Args:
        draw: CPU generator.
        count: Clips, or groups of clips that share their levels, over all batches and processes.
        draws: Levels of each.
        within: Lowest and highest level, in [0, 1].
    """
    low, high = (time_of(sigma) for sigma in within)
    strata = torch.arange(draws * count, dtype=torch.float32).view(draws, count)
    strata = (strata + torch.rand(draws, count, generator=draw)) / (draws * count)
    time = torch.stack([row[torch.randperm(count, generator=draw)] for row in strata])
    return shift_time((low + (high - low) * time).clamp(1e-3, 1.0), MU).clamp(max=0.999)


def time_of(sigma: float) -> float:
    """Return the time at which the shifted table has this level, the inverse of `shift_time`."""
    return 0.0 if sigma == 0.0 else 1.0 / (1.0 + math.exp(MU) * (1.0 / sigma - 1.0))
