"""How far a training is and what it has learnt, and how a checkpoint keeps it.

The frame does not care what is trained (an adapter or a whole transformer) or by which loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reward_tuning.lora.adapter import adapter_state, load_adapter_state
from reward_tuning.runs.checkpoints import RunCheckpoint, rng_state, save_checkpoint
from reward_tuning.runs.ema import Ema
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.guards.guard import Guard
from reward_tuning.runs.optimiser import make_optimiser
from reward_tuning.runs.resumable import comparable, versions
from reward_tuning.schema.loop_section import LoopSection
from reward_tuning.section import Section


@dataclass(frozen=True)
class Trained:
    """Parameters under training, by name.

    Attributes:
        parameters: The parameters, in model order.
        state: Return name to tensor, detached and not copied.
        load: Copy tensors in, by name and strictly.
    """

    parameters: list[nn.Parameter]
    state: Callable[[], dict[str, Tensor]]
    load: Callable[[Mapping[str, Tensor]], None]


def trained_adapter(transformer: nn.Module, parameters: list[nn.Parameter]) -> Trained:
    """Describe the adapter that is attached to a transformer; `parameters` are its own."""
    return Trained(
        parameters,
        lambda: adapter_state(transformer),
        lambda state: load_adapter_state(transformer, state),
    )


@dataclass(kw_only=True)
class TrainingState:
    """Everything that an optimiser step changes.

    Attributes:
        optimiser: The recipe's optimiser, with its moments.
        ema: The moving average, where it is on.
        guards: Rules that watch the steps; a resumed run starts with fresh ones.
        step: Optimiser steps done, skipped ones included.
        position: Draws so far (clips or batches, as the training counts), on all processes.
        bad_steps: Steps skipped so far for NaN or infinity.
        bad_in_a_row: Steps skipped since the last good one.
        idle_steps: Steps so far whose gradient was zero.
    """

    optimiser: torch.optim.Optimizer
    ema: Ema | None
    guards: Sequence[Guard] = ()
    step: int = 0
    position: int = 0
    bad_steps: int = 0
    bad_in_a_row: int = 0
    idle_steps: int = 0

    def exported(self, trained: Trained) -> Mapping[str, Tensor]:
        """Return what is sampled and exported: the moving average where it is on."""
        return trained.state() if self.ema is None else self.ema.state


def initial_state(train: LoopSection, trained: Trained, guards: Sequence[Guard]) -> TrainingState:
    """Return the state before the first step."""
    optimiser = make_optimiser(train, trained.parameters)
    ema = None if train.ema_decay is None else Ema(trained.state(), train.ema_decay)
    return TrainingState(optimiser=optimiser, ema=ema, guards=guards)


def save_state(
    state: TrainingState,
    train: LoopSection,
    trained: Trained,
    recipe: Section,
    fingerprints: Mapping[str, str],
    folder: RunFolder,
) -> None:
    """Save a checkpoint of a run as it is now.

    Raises:
        TuningError: The disk is full.
    """
    checkpoint = RunCheckpoint(
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
