"""One run from beginning to end: prepare, train, evaluate, export.

A step draws its prompts, noise and plan by position and step, differentiates the rewards
(`reward_step`), and updates the adapter. Nothing else decides a run, so a resumed one ends in the
bytes of an uninterrupted one. Several processes, started by `accelerate launch`, share each step;
only the main one writes files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import nn

from reward_tuning.clip_terms import ClipTerms
from reward_tuning.errors import TuningError
from reward_tuning.finish import finish, write_samples
from reward_tuning.lora import adapter_state
from reward_tuning.metrics import MetricsLog, PhaseClock, plan_table, step_row
from reward_tuning.offload import working_during
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.ranks import mean_gradient, mean_of_all, mean_over_ranks
from reward_tuning.recipe import Recipe
from reward_tuning.replay import ReplayClips, ReplayDraw, draw_replay, replay_step
from reward_tuning.reward_step import Batch, reward_step
from reward_tuning.run_folder import RunFolder
from reward_tuning.run_parts import (
    RunParts,
    draw_frames,
    draw_guidance,
    draw_more_plans,
    draw_plan,
    draw_restarts,
    load_parts,
    with_replay,
)
from reward_tuning.run_state import State, exported_state, restore, save, start
from reward_tuning.sections import TrainSection
from reward_tuning.seeds import derive_seed


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
            returned as it is.
        progress: Told what happens, many times a step.

    Raises:
        TuningError: The folder holds a run already (or none to resume, or another recipe's), a
            prompt file is wrong, the disk is full, or too many steps in a row were not finite.
        GeneratorError: The generator cannot be loaded.
        RewardError: A judge cannot be loaded.
    """
    train = recipe.train
    accelerator = Accelerator(
        gradient_accumulation_steps=train.gradient_accumulation, mixed_precision="no"
    )
    main = accelerator.is_main_process
    progress = progress if main else silent
    folder = RunFolder(recipe.output)
    with folder.alone() if main else nullcontext() as warning:
        if warning:
            progress(ProgressEvent("loading", note=warning))
        return _run_in(folder, recipe, accelerator, resume, progress)


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
        restore(state, recipe, parts, folder, clips_a_step(train, accelerator))
        where = f"after step {state.step}" if state.step else "from the beginning: no checkpoint"
        progress(ProgressEvent("loading", note=f"going on {where}"))
    log = MetricsLog(folder.metrics, state.step) if main else None
    table = plan_table(parts.sigmas, draw_plan(recipe, parts.sigmas, step=1, batch=0))
    progress(ProgressEvent("training", state.step, train.steps, note=table))
    if main and state.step == 0:
        write_samples(recipe, parts, folder, 0, None, progress)

    try:
        while state.step < train.steps:
            row = optimiser_step(recipe, parts, state, accelerator, progress)
            if log and is_due(state.step, train.log_every, train.steps):
                log.write(row)
            if state.bad_in_a_row >= train.max_bad_steps:
                raise TuningError(too_many_bad_steps(state, train))
            if main and train.sample_every and state.step % train.sample_every == 0:
                tuned = exported_state(parts, state)
                write_samples(recipe, parts, folder, state.step, tuned, progress)
            if log and is_due(state.step, train.checkpoint_every, train.steps):
                log.flush()
                save(state, recipe, parts, folder)
    finally:
        if log:
            log.close()
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
    terms = clip_terms(train)
    for number in range(train.gradient_accumulation):
        batch = draw_batch(recipe, parts, state, accelerator, number)
        report = reward_step(
            parts.sampler,
            parts.judges,
            batch,
            parts.sigmas,
            negative=recipe.sampling.negative,
            parameters=parts.parameters,
            anchor=train.anchor,
            share=1.0 / train.gradient_accumulation,
            adjoint_limit=train.adjoint_limit,
            normalise_steps=train.normalise_steps,
            steps_at_once=train.steps_at_once,
            merge=train.merge,
            terms=terms,
            cheap=parts.cheap,
            phase=working_during(parts.offload, "reward", clock),
        )
        reports.append(report)
        shown.update(report.rewards)
        if train.replay is not None and step % train.replay.every == 0:
            assert parts.replay is not None
            with clock("replay"):
                draw = draw_clips(recipe, parts.replay, step, accelerator, number)
                replayed.append(
                    replay_step(
                        parts.sampler,
                        parts.replay,
                        draw,
                        weight=train.replay.weight,
                        share=1.0 / train.gradient_accumulation,
                    )
                )
    with clock("update"):
        labels = [*(judge.label for judge in parts.judges), *terms.labels]
        means = mean_over_ranks(reports, labels, accelerator)
        replay = mean_of_all(replayed, accelerator) if replayed else None
        mean_gradient(parts.parameters, accelerator)
        norm = float(nn.utils.clip_grad_norm_(parts.parameters, train.max_grad_norm or math.inf))
        rate = learning_rate(train, step)
        good = math.isfinite(means["loss"]) and math.isfinite(norm)
        if good:
            for group in state.optimiser.param_groups:
                group["lr"] = rate
            state.optimiser.step()
            if state.ema is not None:
                state.ema.update(adapter_state(parts.sampler.generator.transformer))
    state.step = step
    state.position += clips_a_step(train, accelerator)
    state.bad_steps += not good
    state.bad_in_a_row = 0 if good else state.bad_in_a_row + 1
    warning = state.watch.see(norm) if good else f"step {step} skipped: {what_is_bad(means, norm)}"
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
        learning_rate=rate,
        bad_steps=state.bad_steps,
        clock=clock,
    )


def draw_batch(
    recipe: Recipe, parts: RunParts, state: State, accelerator: Accelerator, number: int
) -> Batch:
    """This rank's prompts and noise of a step's batch, by their places in the stream."""
    size = recipe.train.batch_size
    rank = number * accelerator.num_processes + accelerator.process_index
    places = range(state.position + rank * size, state.position + (rank + 1) * size)
    return Batch(
        [parts.stream.prompt_at(place // recipe.train.clips_per_prompt) for place in places],
        [derive_seed(recipe.seed, "noise", place) for place in places],
        draw_plan(recipe, parts.sigmas, step=state.step + 1, batch=number),
        draw_guidance(recipe, step=state.step + 1, batch=number),
        draw_frames(recipe, step=state.step + 1, batch=number),
        draw_more_plans(recipe, parts.sigmas, step=state.step + 1, batch=number),
        draw_restarts(recipe, parts.sigmas, step=state.step + 1, batch=number),
    )


def draw_clips(
    recipe: Recipe, clips: ReplayClips, step: int, accelerator: Accelerator, number: int
) -> ReplayDraw:
    """What this rank replays beside a step's batch: as many clips as the batch has."""
    train = recipe.train
    assert train.replay is not None
    rank = number * accelerator.num_processes + accelerator.process_index
    return draw_replay(
        recipe.seed,
        step // train.replay.every - 1,
        clips_a_step(train, accelerator),
        slice(rank * train.batch_size, (rank + 1) * train.batch_size),
        len(clips.prompts),
    )


def clip_terms(train: TrainSection) -> ClipTerms:
    """The recipe's terms on whole clips."""
    return ClipTerms(train.motion, train.motion_target, train.repulsion, train.clips_per_prompt)


def clips_a_step(train: TrainSection, accelerator: Accelerator) -> int:
    """Clips that one optimiser step draws, over all accumulated batches and processes."""
    return train.gradient_accumulation * accelerator.num_processes * train.batch_size


def is_due(step: int, every: int, steps: int) -> bool:
    """Whether something happens after this step: every so many, and after the last."""
    return step % every == 0 or step == steps


def learning_rate(train: TrainSection, step: int) -> float:
    """Linear warm-up to the recipe's rate, then constant; `step` counts from 1."""
    return train.learning_rate * min(1.0, step / max(1, train.warmup_steps))


def what_is_bad(means: Mapping[str, float], norm: float) -> str:
    """Name what was not finite."""
    if not math.isfinite(means["loss"]):
        return f"the loss is {means['loss']}"
    return f"the gradient's norm is {norm}"


def too_many_bad_steps(state: State, train: TrainSection) -> str:
    """The text of giving up."""
    return (
        f"{state.bad_in_a_row} steps in a row (up to step {state.step}) gave NaN or infinity and "
        f"were skipped; train.max_bad_steps allows {train.max_bad_steps}. Lower "
        "train.learning_rate, or take generator.dtype bfloat16 or float32 in place of float16; "
        "start a new run: this one's last checkpoint may already be on its way there"
    )
