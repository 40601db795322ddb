"""What the seed decides of each batch, and the sigma tables that a run samples with."""

from __future__ import annotations

import torch
from torch import Tensor

from base_model.sampling.sample import start_step
from base_model.sampling.sigmas import sigma_table
from reward_tuning.errors import TuningError
from reward_tuning.gradient.methods import make_plan
from reward_tuning.gradient.plan import Plan
from reward_tuning.gradient.restarts import Restart, restart_index
from reward_tuning.schema.recipe import Recipe
from reward_tuning.seeds import derive_generator
from reward_tuning.tuning.decoding import decoded_frames


def training_sigmas(recipe: Recipe) -> Tensor:
    """The table of the training rollouts, from the level on where they start."""
    sampling = recipe.sampling
    first = start_step(sampling.steps, sampling.strength)
    return sigma_table(sampling.steps, sampling.shift)[first:]


def evaluation_sigmas(recipe: Recipe) -> Tensor:
    """The table that clips to be looked at, scored or replayed are drawn with.

    Raises:
        GeneratorError: The strength leaves no step of `evaluation.steps`.
    """
    steps = recipe.evaluation.steps or recipe.sampling.steps
    return sigma_table(steps)[start_step(steps, recipe.sampling.strength) :]


def draw_plan(
    recipe: Recipe, sigmas: Tensor, *, step: int, batch: int, name: tuple[str | int, ...] = ()
) -> Plan:
    """The plan of one batch: from the seed and the step alone, so the same on every rank.

    `name` tells a further plan of the batch from the first.
    """
    options = recipe.method.model_dump(exclude={"kind"})
    draw = derive_generator(recipe.seed, "plan", step, batch, *name)
    return make_plan(recipe.method.kind, draw, sigmas, **options)


def draw_more_plans(
    recipe: Recipe, sigmas: Tensor, *, step: int, batch: int, name: tuple[str | int, ...] = ()
) -> tuple[Plan, ...]:
    """The plans of a batch's rollout beside the first: `train.active_sets` less one."""
    return tuple(
        draw_plan(recipe, sigmas, step=step, batch=batch, name=(*name, "set", number))
        for number in range(1, recipe.train.active_sets)
    )


def draw_restarts(recipe: Recipe, sigmas: Tensor, *, step: int, batch: int) -> tuple[Restart, ...]:
    """The further chains of a batch.

    Raises:
        TuningError: The method has no plan on the part of the table that a restart runs.
    """
    if not recipe.train.restarts:
        return ()
    first = restart_index(sigmas, recipe.train.restart_sigma)
    table, found = sigmas[first:], []
    try:
        for number in range(recipe.train.restarts):
            name = ("restart", number)
            plan = draw_plan(recipe, table, step=step, batch=batch, name=name)
            more = draw_more_plans(recipe, table, step=step, batch=batch, name=name)
            found.append(Restart(first, (plan, *more)))
    except TuningError as error:
        raise TuningError(
            f"train.restart_sigma is {recipe.train.restart_sigma:g}: a restart runs "
            f"{len(table) - 1} steps from sigma {float(table[0]):.3f} on, and {error}"
        ) from error
    return tuple(found)


def draw_guidance(recipe: Recipe, *, step: int, batch: int) -> float:
    """The guidance scale of one batch, the same on every rank."""
    sampling = recipe.sampling
    if sampling.guidance_range is None:
        return sampling.guidance_scale
    low, high = sampling.guidance_range
    draw = derive_generator(recipe.seed, "guidance", step, batch)
    return low + (high - low) * float(torch.rand((), generator=draw, dtype=torch.float64))


def draw_frames(recipe: Recipe, *, step: int, batch: int) -> tuple[int, ...] | None:
    """Frames of one batch that are judged, the same on every rank; None for all."""
    train = recipe.train
    if train.decoded == "all":
        return None
    draw = derive_generator(recipe.seed, "decoded", step, batch)
    return decoded_frames(train.decoded, train.decoded_latents, recipe.sampling.frames, draw)
