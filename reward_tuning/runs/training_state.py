"""The state of a training, and how a checkpoint keeps it.

The frame does not care what is trained (an adapter or a whole transformer) or by which loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reward_tuning.lora.adapter import adapter_state, load_adapter_state
from reward_tuning.runs.checkpoints import RunCheckpoint, rng_state, save_checkpoint
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.guards import Guard
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


class Ema:
    """Moving average `e <- d e + (1 - d) w` of named tensors.

    The decay starts low, d = min(decay, (1 + n) / (10 + n)) at update n, so that a short run does
    not export a mixture with its start, where the adapter is zero.

    Args:
        state: First value of the average; copied.
        decay: d in the long run, in (0, 1).
    """

    def __init__(self, state: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.state = {name: tensor.detach().clone() for name, tensor in state.items()}

    @torch.no_grad()
    def update(self, state: Mapping[str, Tensor]) -> None:
        """Update the average with the weights after an optimiser step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, average in self.state.items():
            average.lerp_(state[name], 1.0 - decay)
        self.updates += 1

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Restore a saved average, bit for bit."""
        assert state.keys() == self.state.keys()
        for name, average in self.state.items():
            average.copy_(state[name])
        self.updates = updates


@dataclass(frozen=True)
class Left:
    """What is left to do after a step that is made.

    Attributes:
        row: The step's row of metrics.jsonl.
        samples: Sample clips are due, and not drawn yet; after the last step, whose clips the
            training's `finish` makes, that says what a resumed run with more steps has to draw.
        written: Row and clips are written, and the guards alone are left.
    """

    row: Mapping[str, Any]
    samples: bool
    written: bool = False


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
        rate_factor: Factor of the learning rate; rollbacks lower it.
        reward_window: Sum and number of the training rewards since the last guard evaluation.
        left: What is left of the last step, within it and in a checkpoint that was written since
            memory ran out there; None where all is done.
    """

    optimiser: torch.optim.Optimizer
    ema: Ema | None
    guards: Sequence[Guard] = ()
    step: int = 0
    position: int = 0
    bad_steps: int = 0
    bad_in_a_row: int = 0
    idle_steps: int = 0
    rate_factor: float = 1.0
    reward_window: tuple[float, int] = (0.0, 0)
    left: Left | None = None

    @property
    def logged(self) -> int:
        """Last step whose row and sample clips are written."""
        return self.step - (self.left is not None and not self.left.written)

    @property
    def judged(self) -> int:
        """Last step that the guards have seen."""
        return self.step - (self.left is not None)

    def exported(self, trained: Trained) -> Mapping[str, Tensor]:
        """Return what is sampled and exported: the moving average where it is on."""
        return trained.state() if self.ema is None else self.ema.state


def roll_back(
    state: TrainingState, train: LoopSection, trained: Trained, tensors: Mapping[str, Tensor]
) -> None:
    """Continue from other weights, with a fresh optimiser and a fresh average.

    Args:
        state: State of the run; step and position stay, so that later steps draw new prompts.
        train: Section of the recipe.
        trained: What is trained.
        tensors: The weights to continue from, as `trained.state` names them.
    """
    trained.load(tensors)
    state.optimiser = make_optimiser(train, trained.parameters)
    if state.ema is not None:
        state.ema.load(trained.state(), updates=0)


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
        reward_window=state.reward_window,
        left=None if state.left is None else asdict(state.left),
    )
    save_checkpoint(folder.checkpoints, checkpoint, keep=train.keep_checkpoints)
