"""How far a run is and what it has learnt: begun, kept in checkpoints, restored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from reward_tuning.checkpointing import (
    Checkpoint,
    complete_checkpoints,
    load_checkpoint,
    rng_state,
    save_checkpoint,
    set_rng_state,
)
from reward_tuning.ema import Ema
from reward_tuning.errors import TuningError
from reward_tuning.lora import adapter_state, load_adapter_state
from reward_tuning.metrics import GradientWatch
from reward_tuning.recipe import Recipe
from reward_tuning.run_folder import RunFolder, changed_recipe, comparable, recipe_differences
from reward_tuning.run_parts import RunParts


@dataclass
class State:
    """How far a run is and what it has learnt; what a checkpoint keeps."""

    optimiser: torch.optim.Optimizer
    ema: Ema | None
    watch: GradientWatch
    step: int = 0
    position: int = 0
    bad_steps: int = 0
    bad_in_a_row: int = 0


def start(recipe: Recipe, parts: RunParts) -> State:
    """The state before the first step."""
    train = recipe.train
    optimiser = torch.optim.AdamW(
        parts.parameters,
        lr=train.learning_rate,
        betas=train.betas,
        eps=train.adam_eps,
        weight_decay=train.weight_decay,
    )
    ema = None
    if train.ema_decay is not None:
        ema = Ema(adapter_state(parts.sampler.generator.transformer), train.ema_decay)
    return State(optimiser, ema, GradientWatch(train.max_grad_norm))


def exported_state(parts: RunParts, state: State) -> Mapping[str, Tensor]:
    """The adapter that is sampled and exported: the moving average where it is on."""
    if state.ema is not None:
        return state.ema.state
    return adapter_state(parts.sampler.generator.transformer)


def save(state: State, recipe: Recipe, parts: RunParts, folder: RunFolder) -> None:
    """Keep a checkpoint of the run as it is."""
    checkpoint = Checkpoint(
        step=state.step,
        position=state.position,
        bad_steps=state.bad_steps,
        bad_in_a_row=state.bad_in_a_row,
        adapter=adapter_state(parts.sampler.generator.transformer),
        optimiser=state.optimiser.state_dict(),
        rng=rng_state(),
        recipe=comparable(recipe),
        fingerprints=parts.fingerprints,
        ema=state.ema.state if state.ema else None,
        ema_updates=state.ema.updates if state.ema else 0,
    )
    save_checkpoint(folder.checkpoints, checkpoint, keep=recipe.train.keep_checkpoints)


def restore(
    state: State, recipe: Recipe, parts: RunParts, folder: RunFolder, clips_a_step: int
) -> None:
    """Go to the newest checkpoint, or leave the start where there is none.

    Raises:
        TuningError: The checkpoint is damaged, or recipe, weights or number of processes have
            changed since; weights also where there is none yet.
    """
    found = complete_checkpoints(folder.checkpoints)
    if not found:
        begun = folder.begun_with()
        now = {name: parts.fingerprints.get(name) for name in begun}
        if changed := recipe_differences(begun, now, "weights of"):
            raise TuningError(changed_recipe(folder.recipe, changed))
        return
    kept = load_checkpoint(found[-1])
    changed = recipe_differences(kept.recipe, comparable(recipe))
    changed += recipe_differences(kept.fingerprints, parts.fingerprints, "weights of")
    if kept.position != kept.step * clips_a_step:
        changed.append(
            f"clips a step on all processes: was {kept.position // kept.step}, is {clips_a_step}"
        )
    if changed:
        raise TuningError(changed_recipe(folder.recipe, changed))
    load_adapter_state(parts.sampler.generator.transformer, kept.adapter)
    state.optimiser.load_state_dict(dict(kept.optimiser))
    if state.ema is not None:
        assert kept.ema is not None
        state.ema.load(kept.ema, kept.ema_updates)
    set_rng_state(kept.rng)
    state.step, state.position = kept.step, kept.position
    state.bad_steps, state.bad_in_a_row = kept.bad_steps, kept.bad_in_a_row
