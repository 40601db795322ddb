"""How far a training is and what it has learnt: begun, advanced, kept in checkpoints, restored.

What is trained may be an adapter or a whole transformer, and by which loss is no matter here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

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
from reward_tuning.loop_section import LoopSection
from reward_tuning.lora import adapter_state, load_adapter_state
from reward_tuning.ranks import mean_gradient
from reward_tuning.run_folder import RunFolder, changed_recipe, comparable, recipe_differences
from reward_tuning.section_types import Section


@dataclass(frozen=True)
class Trained:
    """Parameters under training, by name.

    Attributes:
        parameters: In model order.
        state: Gives name to tensor, detached and not copied.
        load: Copies tensors in, by name and strictly.
    """

    parameters: list[nn.Parameter]
    state: Callable[[], dict[str, Tensor]]
    load: Callable[[Mapping[str, Tensor]], None]


def trained_adapter(transformer: nn.Module, parameters: list[nn.Parameter]) -> Trained:
    """The adapter that is attached to a transformer; `parameters` are its own."""
    return Trained(
        parameters,
        lambda: adapter_state(transformer),
        lambda state: load_adapter_state(transformer, state),
    )


@dataclass(kw_only=True)
class TrainingState:
    """What a checkpoint keeps.

    Attributes:
        optimiser: AdamW.
        ema: The moving average, where it is on.
        step: Optimiser steps done.
        position: Draws so far (clips or batches, as the loop counts), on all processes.
        bad_steps: Steps skipped so far.
        bad_in_a_row: Since the last good one.
    """

    optimiser: torch.optim.Optimizer
    ema: Ema | None
    step: int = 0
    position: int = 0
    bad_steps: int = 0
    bad_in_a_row: int = 0

    def exported(self, trained: Trained) -> Mapping[str, Tensor]:
        """What is sampled and exported: the moving average where it is on."""
        return trained.state() if self.ema is None else self.ema.state


def begin(train: LoopSection, trained: Trained) -> TrainingState:
    """The state before the first step."""
    optimiser = torch.optim.AdamW(
        trained.parameters,
        lr=train.learning_rate,
        betas=train.betas,
        eps=train.adam_eps,
        weight_decay=train.weight_decay,
    )
    ema = None if train.ema_decay is None else Ema(trained.state(), train.ema_decay)
    return TrainingState(optimiser=optimiser, ema=ema)


@dataclass(frozen=True)
class Update:
    """What an optimiser step did.

    Attributes:
        grad_norm: Of the whole gradient, before clipping.
        learning_rate: Of the step.
        good: Whether loss and gradient were finite; else the step was skipped.
    """

    grad_norm: float
    learning_rate: float
    good: bool


def update(
    train: LoopSection,
    trained: Trained,
    state: TrainingState,
    accelerator: Accelerator,
    *,
    loss: float,
    limit: float | None,
    draws: int,
) -> Update:
    """Exchange the gradient, clip it and take AdamW's step, or skip it where it is not finite.

    Args:
        train: Of the recipe.
        trained: Its gradients are this process's.
        state: Changed: one step and `draws` further.
        accelerator: Of the run.
        loss: Of the step, over all processes.
        limit: Of the gradient's norm; None for none.
        draws: Of the step, on all processes.
    """
    mean_gradient(trained.parameters, accelerator)
    norm = float(nn.utils.clip_grad_norm_(trained.parameters, limit or math.inf))
    rate = learning_rate(train, state.step + 1)
    good = math.isfinite(loss) and math.isfinite(norm)
    if good:
        for group in state.optimiser.param_groups:
            group["lr"] = rate
        state.optimiser.step()
        if state.ema is not None:
            state.ema.update(trained.state())
    state.step += 1
    state.position += draws
    state.bad_steps += not good
    state.bad_in_a_row = 0 if good else state.bad_in_a_row + 1
    return Update(norm, rate, good)


def learning_rate(train: LoopSection, step: int) -> float:
    """Linear warm-up to the recipe's rate, then constant; `step` counts from 1."""
    return train.learning_rate * min(1.0, step / max(1, train.warmup_steps))


def save_state(
    state: TrainingState,
    train: LoopSection,
    trained: Trained,
    recipe: Section,
    fingerprints: Mapping[str, str],
    folder: RunFolder,
) -> None:
    """Keep a checkpoint of a run as it is.

    Raises:
        TuningError: The disk is full.
    """
    checkpoint = Checkpoint(
        step=state.step,
        position=state.position,
        bad_steps=state.bad_steps,
        bad_in_a_row=state.bad_in_a_row,
        adapter=trained.state(),
        optimiser=state.optimiser.state_dict(),
        rng=rng_state(),
        recipe=comparable(recipe),
        fingerprints=fingerprints,
        ema=state.ema.state if state.ema else None,
        ema_updates=state.ema.updates if state.ema else 0,
    )
    save_checkpoint(folder.checkpoints, checkpoint, keep=train.keep_checkpoints)


def restore_state(
    state: TrainingState,
    trained: Trained,
    recipe: Section,
    fingerprints: Mapping[str, str],
    folder: RunFolder,
    *,
    draws_a_step: tuple[int, str],
    content: str,
) -> None:
    """Go to the newest checkpoint, or leave the start where there is none.

    Args:
        state: As begun; changed.
        trained: Changed.
        recipe: Of the run.
        fingerprints: Of what was loaded.
        folder: Of the run.
        draws_a_step: On all processes, and what they are called.
        content: What the fingerprints are of, for the error.

    Raises:
        TuningError: The checkpoint is damaged, or recipe, content or number of processes have
            changed since; content also where there is no checkpoint yet.
    """
    found = complete_checkpoints(folder.checkpoints)
    if not found:
        begun = folder.begun_with()
        now = {name: fingerprints.get(name) for name in begun}
        if changed := recipe_differences(begun, now, content):
            raise TuningError(changed_recipe(folder.recipe, changed))
        return
    kept = load_checkpoint(found[-1])
    changed = recipe_differences(kept.recipe, comparable(recipe))
    changed += recipe_differences(dict(kept.fingerprints), dict(fingerprints), content)
    draws, name = draws_a_step
    if kept.position != kept.step * draws:
        was = kept.position // kept.step
        changed.append(f"{name} a step on all processes: was {was}, is {draws}")
    if changed:
        raise TuningError(changed_recipe(folder.recipe, changed))
    trained.load(kept.adapter)
    state.optimiser.load_state_dict(dict(kept.optimiser))
    if state.ema is not None:
        assert kept.ema is not None
        state.ema.load(kept.ema, kept.ema_updates)
    set_rng_state(kept.rng)
    state.step, state.position = kept.step, kept.position
    state.bad_steps, state.bad_in_a_row = kept.bad_steps, kept.bad_in_a_row
