"""The state of a reward tuning: that of every training, and the watch over its gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from reward_tuning.progress import ProgressFn, silent
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.resuming import restore_state
from reward_tuning.runs.training_state import TrainingState, begin, save_state
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.parts import RunParts
from reward_tuning.tuning.rows import GradientWatch


@dataclass(kw_only=True)
class State(TrainingState):
    """How far a run is and what it has learnt; its position counts clips.

    Attributes:
        watch: Over the gradient's norm; begins anew on a resume.
    """

    watch: GradientWatch


def start(recipe: Recipe, parts: RunParts) -> State:
    """The state before the first step."""
    begun = begin(recipe.train, parts.trained)
    return State(
        optimiser=begun.optimiser, ema=begun.ema, watch=GradientWatch(recipe.train.max_grad_norm)
    )


def exported_state(parts: RunParts, state: State) -> Mapping[str, Tensor]:
    """The adapter that is sampled and exported: the moving average where it is on."""
    return state.exported(parts.trained)


def save(state: State, recipe: Recipe, parts: RunParts, folder: RunFolder) -> None:
    """Keep a checkpoint of the run as it is."""
    save_state(state, recipe.train, parts.trained, recipe, parts.fingerprints, folder)


def restore(
    state: State,
    recipe: Recipe,
    parts: RunParts,
    folder: RunFolder,
    clips_a_step: int,
    tell: ProgressFn = silent,
) -> None:
    """Go to the newest whole checkpoint, or leave the start where there is none.

    Raises:
        TuningError: See `reward_tuning.runs.resuming.restore_state`.
    """

    def called(name: str) -> str:
        if name in ("prompts.train", "prompts.held_out"):
            return f"{name} ({getattr(recipe.prompts, name.removeprefix('prompts.'))})"
        return f"weights of {name}"

    restore_state(
        state,
        parts.trained,
        recipe,
        parts.fingerprints,
        folder,
        draws_a_step=(clips_a_step, "clips"),
        called=called,
        tell=tell,
    )
