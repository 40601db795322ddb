"""The noise levels and the noise at which clips are matched: of each update, from named seeds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from base_model.sampling.sigmas import MU
from base_model.training.flow_matching import draw_sigmas
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
    sigmas = stratified_levels(recipe.seed, step, update, count, method.draws)
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


def stratified_levels(seed: int, step: int, update: int, count: int, draws: int) -> Tensor:
    """Draw the levels of all batches of one update, `(draws, count)`, as one joint draw.

    They follow the base's training (`draw_sigmas`, mu = 1), stratified over the whole update, and
    so that the levels of each clip, or of clips that share theirs, lie one in each `draws`-th part.

    Args:
        seed: Seed of the run.
        step: Counted from 1.
        update: Index of the update within the step.
        count: Clips, or groups of clips that share their levels, over all batches and processes.
        draws: Levels of each.
    """
    draw = derive_generator(seed, "matching", "sigmas", step, update)
    levels = draw_sigmas(draws * count, draw, mu=MU).sort().values.view(draws, count)
    return torch.stack([row[torch.randperm(count, generator=draw)] for row in levels])
