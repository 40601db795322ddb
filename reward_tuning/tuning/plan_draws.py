"""The random choice of plans: of a batch, of further ones for the same rollout, and of restarts.

The same on every rank, each from a generator of its own, as every draw (`draws`).
"""

from __future__ import annotations

from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.gradient.plan import Plan
from reward_tuning.gradient.reuse import Restart, place_read, restart_index
from reward_tuning.schema.recipe import Recipe
from reward_tuning.seeds import derive_generator

DRAWS = 10_000
"""Most draws for a plan of a given stop. There are only tens of stops, so it is never missed."""


def draw_plan(
    recipe: Recipe,
    sigmas: Tensor,
    *,
    step: int,
    batch: int,
    name: tuple[str | int, ...] = (),
    like: Plan | None = None,
) -> Plan:
    """Draw the plan of one batch, the same on every rank.

    Args:
        recipe: Resolved.
        sigmas: `(N + 1,)`, the table of the rollout.
        step: Counted from 1.
        batch: Index of the accumulated batch.
        name: Distinguishes further plans of the batch from the first.
        like: A plan whose reward input the drawn one must read; None for any. The draw is repeated
            until it does, so the active steps follow the method's distribution at that stop.

    Raises:
        TuningError: The method does not fit the table, or never reads that input.
    """
    draw = derive_generator(recipe.seed, "plan", step, batch, *name)
    for _ in range(DRAWS):
        plan = recipe.method.plan(draw, sigmas)
        if like is None or place_read(plan) == place_read(like):
            return plan
    raise TuningError(
        "the method draws no second plan that is read where the first one is; set "
        "train.active_sets=1 and train.updates_per_rollout=1"
    )


def draw_more_plans(
    recipe: Recipe,
    sigmas: Tensor,
    plan: Plan,
    *,
    step: int,
    batch: int,
    name: tuple[str | int, ...] = (),
) -> tuple[Plan, ...]:
    """Draw the plans of a batch's rollout after the first: `train.active_sets` - 1."""
    return tuple(
        draw_plan(recipe, sigmas, step=step, batch=batch, name=(*name, "set", number), like=plan)
        for number in range(1, recipe.train.active_sets)
    )


def draw_later_plans(
    recipe: Recipe,
    sigmas: Tensor,
    plan: Plan,
    *,
    step: int,
    batch: int,
    name: tuple[str | int, ...] = (),
) -> tuple[tuple[Plan, ...], ...]:
    """Draw the plans of a rollout's further updates: `train.updates_per_rollout` - 1 times.

    Each has steps of its own, read where the first one is read. A method with one plan for a
    rollout sweeps it again.
    """
    count = range(1, recipe.train.updates_per_rollout)
    if not count:
        return ()
    if recipe.method.one_plan_only:
        return tuple((plan,) for _ in count)
    return tuple(
        tuple(
            draw_plan(
                recipe,
                sigmas,
                step=step,
                batch=batch,
                name=(*name, "update", number, "set", member),
                like=plan,
            )
            for member in range(recipe.train.active_sets)
        )
        for number in count
    )


def draw_restarts(recipe: Recipe, sigmas: Tensor, *, step: int, batch: int) -> tuple[Restart, ...]:
    """Draw the restarts of a batch, each with its plans.

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
            more = draw_more_plans(recipe, table, plan, step=step, batch=batch, name=name)
            later = draw_later_plans(recipe, table, plan, step=step, batch=batch, name=name)
            found.append(Restart(first, (plan, *more), later))
    except TuningError as error:
        raise TuningError(
            f"train.restart_sigma is {recipe.train.restart_sigma:g}: a restart runs "
            f"{len(table) - 1} steps from sigma {float(table[0]):.3f} on, and {error}"
        ) from error
    return tuple(found)
