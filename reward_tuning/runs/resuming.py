"""Continue a run from its newest intact checkpoint, if everything that decides it is unchanged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from reward_tuning.errors import TuningError
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.runs.checkpoints import (
    DamagedCheckpointError,
    RunCheckpoint,
    complete_checkpoints,
    read_checkpoint,
    set_rng_state,
)
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.resumable import (
    changed_recipe,
    comparable,
    recipe_differences,
    versions,
    with_new_keys,
    without_free,
)
from reward_tuning.runs.training_state import Left, Trained, TrainingState
from reward_tuning.schema.judge_roles import rename_reward_keys
from reward_tuning.section import Section


def restore_state(
    state: TrainingState,
    trained: Trained,
    recipe: Section,
    fingerprints: Mapping[str, str],
    folder: RunFolder,
    *,
    draws_a_step: tuple[int, str],
    describe_fingerprint: Callable[[str], str],
    progress: ProgressFn = silent,
) -> None:
    """Load the newest intact checkpoint; where there is none yet, leave the initial state.

    Args:
        state: The initial state; changed in place.
        trained: What is trained; changed in place.
        recipe: Recipe of the resumed run.
        fingerprints: Hashes of what was loaded.
        folder: Folder of the run.
        draws_a_step: What a step draws on all processes: how many, and of what.
        describe_fingerprint: Name for people what a fingerprint was made of.
        progress: Receives a note on damaged checkpoints and changed library versions.

    Raises:
        TuningError: Every checkpoint is damaged, or recipe, weights, prompts, clips or number of
            processes have changed since the run began.
    """
    kept = newest_intact(folder, progress)
    if kept is None:
        # Without a checkpoint the head of recipe.yaml is the only record of what the run began with
        begun = folder.initial_fingerprints()
        now = {name: fingerprints.get(name) for name in begun}
        if changed := content_differences(begun, now, describe_fingerprint):
            raise TuningError(changed_recipe(folder.recipe, changed))
        report_versions(folder.initial_versions(), progress)
        return
    # A run of an older version has the old names, and keys that may change by now.
    given = comparable(recipe)
    chosen = recipe.model_dump(mode="json", exclude_defaults=True)
    begun_with = with_new_keys(without_free(rename_reward_keys(kept.recipe)), given, chosen)
    changed = recipe_differences(begun_with, given)
    changed += content_differences(kept.fingerprints, fingerprints, describe_fingerprint)
    # With another number of processes every later draw would be another one.
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
    report_versions(kept.versions, progress)
    trained.load(kept.adapter)
    state.optimiser.load_state_dict(dict(kept.optimiser))
    if state.ema is not None:
        assert kept.ema is not None
        state.ema.load(kept.ema, kept.ema_updates)
    # Last, for loading may draw from the global generators.
    set_rng_state(kept.rng)
    state.step, state.position = kept.step, kept.position
    state.bad_steps, state.bad_in_a_row = kept.bad_steps, kept.bad_in_a_row
    state.idle_steps, state.reward_window = kept.idle_steps, kept.reward_window
    state.left = None if kept.left is None else Left(**kept.left)
    if state.left is not None and state.left.samples and kept.step < steps:
        # It was the last step, and is no more: its clips are drawn, and its row is written again.
        state.left = replace(state.left, written=False)


def newest_intact(folder: RunFolder, progress: ProgressFn = silent) -> RunCheckpoint | None:
    """Read the newest checkpoint that is intact; None where the run has none yet.

    Args:
        folder: Folder of the run.
        progress: Receives a note on each that is damaged.

    Raises:
        TuningError: There are checkpoints, and all of them are damaged.
    """
    damaged = []
    for path in reversed(complete_checkpoints(folder.checkpoints)):
        try:
            return read_checkpoint(path)
        except DamagedCheckpointError as error:
            damaged.append(str(error))
            progress(ProgressEvent("loading", note=f"{error}; using the one before it"))
    # Training again from the first step would cost the user hours without a word.
    if damaged:
        raise TuningError(
            f"{damaged[-1]}, and no other checkpoint is intact. To train again from the first "
            f"step, delete {folder.checkpoints} and resume"
        )
    return None


def content_differences(
    kept: Mapping[str, str | None], now: Mapping[str, str | None], describe: Callable[[str], str]
) -> list[str]:
    """List the fingerprints that differ, as `what: was A, is B`."""
    return [
        f"{describe(name)}: was {kept.get(name)}, is {now.get(name)}"
        for name in dict.fromkeys([*kept, *now])
        if kept.get(name) != now.get(name)
    ]


def report_versions(kept: Mapping[str, str], progress: ProgressFn) -> None:
    """Report libraries whose version has changed since the run began."""
    now = versions()
    changed = [f"{name} {was} -> {now.get(name)}" for name, was in kept.items() if was != now[name]]
    if changed:
        note = (
            f"library versions changed since the run began: {', '.join(changed)}. It continues, "
            "but its numbers may differ"
        )
        progress(ProgressEvent("loading", note=note))
