"""How far a training is and what it has learnt: begun, advanced, kept in checkpoints, restored.

What is trained may be an adapter or a whole transformer, and by which loss is no matter here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from reward_tuning.lora.adapter import adapter_state, load_adapter_state
from reward_tuning.runs.checkpoints import Checkpoint, rng_state, save_checkpoint
from reward_tuning.runs.ema import Ema
from reward_tuning.runs.folder import RunFolder, comparable, versions
from reward_tuning.runs.idle import IdleWatch
from reward_tuning.runs.optimiser import learning_rate, make_optimiser
from reward_tuning.runs.ranks import mean_gradient
from reward_tuning.schema.loop_section import LoopSection
from reward_tuning.schema.values import Section


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
        optimiser: AdamW of either kind.
        ema: The moving average, where it is on.
        step: Optimiser steps done.
        position: Draws so far (clips or batches, as the loop counts), on all processes.
        bad_steps: Steps skipped so far.
        bad_in_a_row: Since the last good one.
        idle_steps: Steps so far whose gradient was zero.
        idle: Watches over them; begins anew on a resume.
    """

    optimiser: torch.optim.Optimizer
    ema: Ema | None
    step: int = 0
    position: int = 0
    bad_steps: int = 0
    bad_in_a_row: int = 0
    idle_steps: int = 0
    idle: IdleWatch = field(default_factory=IdleWatch)

    def exported(self, trained: Trained) -> Mapping[str, Tensor]:
        """What is sampled and exported: the moving average where it is on."""
        return trained.state() if self.ema is None else self.ema.state


def begin(train: LoopSection, trained: Trained) -> TrainingState:
    """The state before the first step."""
    optimiser = make_optimiser(train, trained.parameters)
    ema = None if train.ema_decay is None else Ema(trained.state(), train.ema_decay)
    return TrainingState(optimiser=optimiser, ema=ema)


@dataclass(frozen=True)
class Update:
    """What an optimiser step did.

    Attributes:
        grad_norm: Of the whole gradient, before clipping.
        learning_rate: Of the step.
        good: Whether loss and gradient were finite; else the step was skipped.
        idle: Whether the gradient was zero.
    """

    grad_norm: float
    learning_rate: float
    good: bool
    idle: bool


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
    idle = good and norm == 0
    state.idle_steps += idle
    return Update(norm, rate, good, idle)


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
        versions=versions(),
        idle_steps=state.idle_steps,
        ema=state.ema.state if state.ema else None,
        ema_updates=state.ema.updates if state.ema else 0,
    )
    save_checkpoint(folder.checkpoints, checkpoint, keep=train.keep_checkpoints)
