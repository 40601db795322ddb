"""A run goes on where its newest whole checkpoint left it, if what decides it is unchanged."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from reward_tuning.errors import TuningError
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.runs.checkpoints import (
    Checkpoint,
    DamagedCheckpointError,
    complete_checkpoints,
    load_checkpoint,
    set_rng_state,
)
from reward_tuning.runs.folder import (
    RunFolder,
    changed_recipe,
    comparable,
    recipe_differences,
    versions,
)
from reward_tuning.runs.training_state import Trained, TrainingState
from reward_tuning.schema.judge_roles import rename_reward_keys
from reward_tuning.schema.values import Section


def restore_state(
    state: TrainingState,
    trained: Trained,
    recipe: Section,
    fingerprints: Mapping[str, str],
    folder: RunFolder,
    *,
    draws_a_step: tuple[int, str],
    called: Callable[[str], str],
    tell: ProgressFn = silent,
) -> None:
    """Go to the newest whole checkpoint, or leave the start where there is none.

    Args:
        state: As begun; changed.
        trained: Changed.
        recipe: Of the run.
        fingerprints: Of what was loaded.
        folder: Of the run.
        draws_a_step: On all processes, and what they are called.
        called: Names what a fingerprint is of, for the error.
        tell: Told of damaged checkpoints and of libraries that have changed.

    Raises:
        TuningError: Every checkpoint is damaged; or recipe, weights, prompts or number of processes
            have changed since; the content also where there is no checkpoint yet.
    """
    kept = newest_whole(folder, tell)
    if kept is None:
        now = {name: fingerprints.get(name) for name in folder.begun_with()}
        if changed := content_differences(folder.begun_with(), now, called):
            raise TuningError(changed_recipe(folder.recipe, changed))
        tell_versions(folder.versions_begun_with(), tell)
        return
    begun_with = rename_reward_keys(kept.recipe)  # a run of an older version has the old names
    changed = recipe_differences(begun_with, comparable(recipe))
    changed += content_differences(kept.fingerprints, fingerprints, called)
    draws, name = draws_a_step
    if kept.position != kept.step * draws:
        was = kept.position // kept.step
        changed.append(f"{name} a step on all processes: was {was}, is {draws}")
    if changed:
        raise TuningError(changed_recipe(folder.recipe, changed))
    steps = recipe.model_dump(include={"train": {"steps"}})["train"]["steps"]
    if kept.step > steps:
        raise TuningError(
            f"train.steps: got {steps}, but the run has made {kept.step} steps; give at least that "
            "many"
        )
    tell_versions(kept.versions, tell)
    trained.load(kept.adapter)
    state.optimiser.load_state_dict(dict(kept.optimiser))
    if state.ema is not None:
        assert kept.ema is not None
        state.ema.load(kept.ema, kept.ema_updates)
    set_rng_state(kept.rng)
    state.step, state.position = kept.step, kept.position
    state.bad_steps, state.bad_in_a_row = kept.bad_steps, kept.bad_in_a_row
    state.idle_steps = kept.idle_steps


def newest_whole(folder: RunFolder, tell: ProgressFn = silent) -> Checkpoint | None:
    """The newest checkpoint that is whole; None where the run has none yet.

    Args:
        folder: Of the run.
        tell: Told of each that is damaged.

    Raises:
        TuningError: There are some, and all of them are damaged.
    """
    damaged = []
    for path in reversed(complete_checkpoints(folder.checkpoints)):
        try:
            return load_checkpoint(path)
        except DamagedCheckpointError as error:
            damaged.append(str(error))
            tell(ProgressEvent("loading", note=f"{error}; the one before it is used"))
    if damaged:
        raise TuningError(
            f"{damaged[-1]}, and no other checkpoint is intact. To train again from the first "
            f"step, delete {folder.checkpoints} and resume"
        )
    return None


def content_differences(
    kept: Mapping[str, str | None], now: Mapping[str, str | None], called: Callable[[str], str]
) -> list[str]:
    """List the fingerprints that differ."""
    return [
        f"{called(name)}: was {kept.get(name)}, is {now.get(name)}"
        for name in dict.fromkeys([*kept, *now])
        if kept.get(name) != now.get(name)
    ]


def tell_versions(kept: Mapping[str, str], tell: ProgressFn) -> None:
    """Report libraries whose version has changed since the run began."""
    now = versions()
    changed = [f"{name} {was} -> {now.get(name)}" for name, was in kept.items() if was != now[name]]
    if changed:
        note = (
            f"library versions changed since the run began: {', '.join(changed)}. It continues, "
            "but its numbers may differ"
        )
        tell(ProgressEvent("loading", note=note))
