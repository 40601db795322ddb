"""One run from beginning to end: prepare, train, evaluate, export.

A step draws its prompts, noise and plan by position and step, differentiates the rewards
(`reward_step`), and updates the adapter. Nothing else decides a run, so a resumed one ends in the
bytes of an uninterrupted one. Several processes, started by a launcher, share each step;
only the main one writes files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from reward_tuning.judges.offload import onloaded_during
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.idle import why_idle
from reward_tuning.runs.launching import join_processes
from reward_tuning.runs.loop import alone_in, metrics_log, report_resume_point, train_steps
from reward_tuning.runs.metrics import PhaseClock
from reward_tuning.runs.ranks import mean_of_all, mean_over_ranks
from reward_tuning.runs.training_state import update
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.draws import clips_a_step, draw_batch, draw_plan, draw_replay_batch
from reward_tuning.tuning.finish import finish, write_samples
from reward_tuning.tuning.parts import RunParts, load_parts, with_replay
from reward_tuning.tuning.replay import replay_step
from reward_tuning.tuning.rows import plan_table, step_row
from reward_tuning.tuning.state import State, exported_state, restore, save, start
from reward_tuning.tuning.step import reward_step


@dataclass(frozen=True)
class RunResult:
    """What a finished run left.

    Attributes:
        folder: The run folder.
        steps: Optimiser steps, skipped ones included.
        evaluation: The content of evaluation.json.
    """

    folder: Path
    steps: int
    evaluation: Mapping[str, Any]


def run(recipe: Recipe, *, resume: bool = False, progress: ProgressFn = silent) -> RunResult:
    """Train what a recipe says, evaluate it and export it into its run folder.

    Args:
        recipe: Resolved (`load_recipe`).
        resume: Go on with the run in the folder from its newest checkpoint. A finished run is
            returned as it is, unless the recipe has more steps.
        progress: Told what happens, many times a step.

    Raises:
        TuningError: The folder holds a run already (or none to resume, or another recipe's), a
            prompt file is wrong, the disk is full, or too many steps in a row were not finite.
        GeneratorError: The generator cannot be loaded.
        RewardError: A judge cannot be loaded.
    """
    accelerator = join_processes()
    folder = RunFolder(recipe.output)
    with alone_in(folder, accelerator, progress) as told:
        return _run_in(folder, recipe, accelerator, resume, told)


def _run_in(
    folder: RunFolder,
    recipe: Recipe,
    accelerator: Accelerator,
    resume: bool,
    progress: ProgressFn,
) -> RunResult:
    train, main = recipe.train, accelerator.is_main_process
    finished = folder.open(recipe, resume=resume)
    if finished is not None:
        return RunResult(folder.root, train.steps, finished)

    with accelerator.main_process_first():  # the others find the text states in the cache
        clips = train.steps * clips_a_step(train, accelerator)
        prompts = clips // train.clips_per_prompt
        parts = load_parts(recipe, accelerator.device, prompts, progress)
    if main and not resume:
        folder.begin(recipe, parts.fingerprints)
    parts = with_replay(recipe, parts, folder.replay, accelerator, progress)
    state = start(recipe, parts)
    if resume:
        restore(state, recipe, parts, folder, clips_a_step(train, accelerator), progress)
        if main:
            folder.go_on(recipe, parts.fingerprints)
        report_resume_point(state, progress)
    table = plan_table(parts.sigmas, draw_plan(recipe, parts.sigmas, step=1, batch=0))
    progress(ProgressEvent("training", state.step, train.steps, note=table))
    if main and state.step == 0:
        write_samples(recipe, parts, folder, 0, parts.start, progress)

    def look() -> Mapping[str, Any]:
        tuned = exported_state(parts, state)
        write_samples(recipe, parts, folder, state.step, tuned, progress)
        return {}

    with metrics_log(folder, state, accelerator) as log:
        train_steps(
            train,
            state,
            log,
            step=lambda: optimiser_step(recipe, parts, state, accelerator, progress),
            look=look,
            save=lambda: save(state, recipe, parts, folder),
        )
    tuned = exported_state(parts, state)
    evaluation = finish(recipe, parts, accelerator, folder, tuned, progress)
    return RunResult(folder.root, state.step, evaluation)


def optimiser_step(
    recipe: Recipe,
    parts: RunParts,
    state: State,
    accelerator: Accelerator,
    progress: ProgressFn = silent,
) -> dict[str, Any]:
    """Make one update of the adapter, or skip it where loss or gradient is not finite.

    Returns:
        The step's row of metrics.jsonl.
    """
    train, step = recipe.train, state.step + 1
    shown: dict[str, float] = {}
    clock = PhaseClock(
        accelerator.device,
        lambda name: progress(ProgressEvent("training", state.step, train.steps, name, shown)),
    )
    state.optimiser.zero_grad(set_to_none=True)
    reports, replayed = [], []
    for number in range(train.gradient_accumulation):
        batch = draw_batch(recipe, parts.stream, parts.sigmas, state, accelerator, number)
        report = reward_step(
            parts.sampler,
            parts.judges,
            batch,
            parts.sigmas,
            parameters=parts.trained.parameters,
            options=parts.options,
            phase=onloaded_during(parts.offload, "reward", clock),
        )
        reports.append(report)
        shown.update(report.rewards)
        if train.replay is not None and step % train.replay.every == 0:
            assert parts.replay is not None
            with clock("replay"):
                draw = draw_replay_batch(
                    recipe, len(parts.replay.prompts), step, accelerator, number
                )
                replayed.append(
                    replay_step(
                        parts.sampler,
                        parts.replay,
                        draw,
                        weight=train.replay.weight,
                        share=parts.options.share,
                    )
                )
    with clock("update"):
        labels = [*(judge.label for judge in parts.judges), *parts.options.terms.labels]
        means = mean_over_ranks(reports, labels, accelerator)
        replay = mean_of_all(replayed, accelerator) if replayed else None
        made = update(
            train,
            parts.trained,
            state,
            accelerator,
            loss=means["loss"],
            limit=train.max_grad_norm,
            draws=clips_a_step(train, accelerator),
        )
    norm = made.grad_norm
    skipped = f"step {step} skipped: {nonfinite_name(means, norm)}"
    idle = state.idle.see(made.idle, lambda: why_idle(parts.judges, means))
    for warning in (state.watch.see(norm) if made.good else skipped, idle):
        if warning:
            progress(ProgressEvent("training", step, train.steps, note=warning))
    shown = {"loss": means["loss"], **{k: v for k, v in means.items() if "reward/" in k}}
    if replay is not None:
        shown["replay"] = replay
    progress(ProgressEvent("training", step, train.steps, "", shown))
    return step_row(
        step,
        reports,
        means,
        replay=replay,
        grad_norm=norm,
        learning_rate=made.learning_rate,
        bad_steps=state.bad_steps,
        clock=clock,
    )


def nonfinite_name(means: Mapping[str, float], norm: float) -> str:
    """Name what was not finite."""
    if not math.isfinite(means["loss"]):
        return f"the loss is {means['loss']}"
    return f"the gradient's norm is {norm}"
