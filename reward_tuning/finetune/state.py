"""How far a fine-tuning is and what it has learnt: begun, kept in checkpoints, restored."""

from __future__ import annotations

from dataclasses import dataclass

import torch

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
from reward_tuning.finetune.parts import FinetuneParts
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.finetune.trained import Trained
from reward_tuning.run_folder import RunFolder, changed_recipe, comparable, recipe_differences


@dataclass
class FinetuneState:
    """What a checkpoint keeps.

    Attributes:
        optimiser: AdamW.
        ema: The moving average, where it is on.
        step: Optimiser steps done.
        position: Batches drawn so far, on all processes.
        bad_steps: Steps skipped so far.
        bad_in_a_row: Since the last good one.
    """

    optimiser: torch.optim.Optimizer
    ema: Ema | None
    step: int = 0
    position: int = 0
    bad_steps: int = 0
    bad_in_a_row: int = 0

    @classmethod
    def start(cls, recipe: FinetuneRecipe, trained: Trained) -> FinetuneState:
        """The state before the first step."""
        train = recipe.train
        optimiser = torch.optim.AdamW(
            trained.parameters,
            lr=train.learning_rate,
            betas=train.betas,
            eps=train.adam_eps,
            weight_decay=train.weight_decay,
        )
        ema = None if train.ema_decay is None else Ema(trained.state(), train.ema_decay)
        return cls(optimiser, ema)


def save(
    state: FinetuneState, recipe: FinetuneRecipe, parts: FinetuneParts, folder: RunFolder
) -> None:
    """Keep a checkpoint of the run as it is.

    Raises:
        TuningError: The disk is full.
    """
    checkpoint = Checkpoint(
        step=state.step,
        position=state.position,
        bad_steps=state.bad_steps,
        bad_in_a_row=state.bad_in_a_row,
        adapter=parts.trained.state(),
        optimiser=state.optimiser.state_dict(),
        rng=rng_state(),
        recipe=comparable(recipe),
        fingerprints=parts.fingerprints,
        ema=state.ema.state if state.ema else None,
        ema_updates=state.ema.updates if state.ema else 0,
    )
    save_checkpoint(folder.checkpoints, checkpoint, keep=recipe.train.keep_checkpoints)


def restore(
    state: FinetuneState, recipe: FinetuneRecipe, parts: FinetuneParts, folder: RunFolder
) -> None:
    """Go to the newest checkpoint, or leave the start where there is none.

    Raises:
        TuningError: The checkpoint is damaged, or recipe, weights, clips or number of processes
            have changed since.
    """
    found = complete_checkpoints(folder.checkpoints)
    if not found:
        return
    kept = load_checkpoint(found[-1])
    changed = recipe_differences(kept.recipe, comparable(recipe))
    changed += recipe_differences(kept.fingerprints, parts.fingerprints, "content of")
    if changed:
        raise TuningError(changed_recipe(folder.recipe, changed))
    parts.trained.load(kept.adapter)
    state.optimiser.load_state_dict(dict(kept.optimiser))
    if state.ema is not None:
        assert kept.ema is not None
        state.ema.load(kept.ema, kept.ema_updates)
    set_rng_state(kept.rng)
    state.step, state.position = kept.step, kept.position
    state.bad_steps, state.bad_in_a_row = kept.bad_steps, kept.bad_in_a_row
