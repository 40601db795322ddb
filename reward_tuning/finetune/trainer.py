"""A fine-tuning from beginning to end: look at the clips, train, measure, export.

A step draws its batches, noise levels and dropout by its number, so a resumed run ends in the bytes
of an uninterrupted one. Several processes, started by a launcher, share each step; only
the main one writes files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from base_model.training.velocity_loss import norm_limit
from reward_tuning.errors import TuningError
from reward_tuning.files.atomic_write import atomic_write
from reward_tuning.finetune.exporting import export_trained
from reward_tuning.finetune.folder import FinetuneFolder
from reward_tuning.finetune.held_out import measure, scalars, write_samples
from reward_tuning.finetune.parts import FinetuneParts, load_finetune_parts
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.finetune.step import training_loss
from reward_tuning.finetune.trained import exported_weights
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.runs.launching import join_processes
from reward_tuning.runs.loop import alone_in, metrics_log, report_resume_point, train_steps
from reward_tuning.runs.metrics import MetricsLog, PhaseClock
from reward_tuning.runs.ranks import mean_of_all
from reward_tuning.runs.resuming import restore_state
from reward_tuning.runs.training_state import (
    TrainingState,
    begin,
    save_state,
    update,
)

FLAT = "The loss does not depend on the trained weights: check lora.targets and flow.most_error"


@dataclass(frozen=True)
class FinetuneResult:
    """What a finished fine-tuning left.

    Attributes:
        folder: The run folder.
        summary: The content of finetune.json.
    """

    folder: Path
    summary: Mapping[str, Any]


def finetune(
    recipe: FinetuneRecipe, *, resume: bool = False, progress: ProgressFn = silent
) -> FinetuneResult:
    """Train what a recipe says on its clips, and export it into its run folder.

    Args:
        recipe: Resolved (`load_finetune_recipe`).
        resume: Go on with the run in the folder from its newest checkpoint. A finished run is
            returned as it is, unless the recipe has more steps.
        progress: Told what happens, many times a step.

    Raises:
        TuningError: The folder holds a run already (or none to resume, or another recipe's), no
            clip can be used, the disk is full, or too many steps in a row were not finite.
        GeneratorError: The generator cannot be loaded.
    """
    accelerator = join_processes()
    folder = FinetuneFolder(recipe.output)
    with alone_in(folder, accelerator, progress) as told:
        return _finetune_in(folder, recipe, accelerator, resume, told)


def _finetune_in(
    folder: FinetuneFolder,
    recipe: FinetuneRecipe,
    accelerator: Accelerator,
    resume: bool,
    progress: ProgressFn,
) -> FinetuneResult:
    train, main = recipe.train, accelerator.is_main_process
    finished = folder.open(recipe, resume=resume)
    if finished is not None:
        return FinetuneResult(folder.root, finished)
    with accelerator.main_process_first():  # the others find the text states in the cache
        parts = load_finetune_parts(recipe, accelerator.device, progress)
    if main and not resume:
        folder.begin(recipe, parts.fingerprints)
        atomic_write(folder.clips, parts.survey.report().encode())
    state = begin(train, parts.trained)
    if resume:
        restore_state(
            state,
            parts.trained,
            recipe,
            parts.fingerprints,
            folder,
            draws_a_step=(batches_a_step(recipe, accelerator), "batches"),
            called=lambda name: f"content of {name}",
            tell=progress,
        )
        if main:
            folder.go_on(recipe, parts.fingerprints)
        report_resume_point(state, progress)
    if main:
        _look_before(folder, recipe, parts, state, progress)

    def look() -> dict[str, Any]:
        with exported_weights(parts.trained, state):
            write_samples(recipe, parts, folder, state.step, progress)
            return scalars(measure(recipe, parts, progress))

    with metrics_log(folder, state, accelerator) as log:
        if log and state.step == 0:
            log.show({"step": 0, **scalars(json.loads(folder.base.read_text()))})
        train_steps(
            train,
            state,
            log,
            step=lambda: optimiser_step(recipe, parts, state, accelerator, progress),
            look=look,
            save=lambda: save_state(
                state, train, parts.trained, recipe, parts.fingerprints, folder
            ),
        )
        summary = _finish(folder, recipe, parts, state, log, progress)
    if parts.survey.broken:
        progress(ProgressEvent("finished", note=parts.survey.told()))
    return FinetuneResult(folder.root, summary)


def optimiser_step(
    recipe: FinetuneRecipe,
    parts: FinetuneParts,
    state: TrainingState,
    accelerator: Accelerator,
    progress: ProgressFn = silent,
) -> dict[str, Any]:
    """Make one update, or skip it where loss or gradient is not finite.

    Returns:
        The step's row of metrics.jsonl.
    """
    train, step = recipe.train, state.step + 1
    clock = PhaseClock(
        accelerator.device,
        lambda name: progress(ProgressEvent("training", state.step, train.steps, name)),
    )
    state.optimiser.zero_grad(set_to_none=True)
    losses, shapes = [], []
    for number in batch_numbers(state.step, train.gradient_accumulation, accelerator):
        with clock("clips"):
            planned = parts.order(number)
            batch = parts.encoder(planned)
        with clock("gradient"):
            loss = training_loss(
                parts.generator,
                batch,
                recipe.flow,
                seed=recipe.seed,
                number=number,
                autocast_dtype=train.autocast,
            )
            (loss / train.gradient_accumulation).backward()
        losses.append(float(loss.detach()))
        shapes.append([len(batch.latents), planned.frames, planned.height, planned.width])
    with clock("update"):
        loss_mean = mean_of_all(losses, accelerator)
        limit = train.max_grad_norm
        if limit is not None:
            limit = norm_limit(
                state.step,
                limit,
                first_ratio=train.first_norm_ratio,
                decay_steps=train.norm_decay_steps,
            )
        made = update(
            train,
            parts.trained,
            state,
            accelerator,
            loss=loss_mean,
            limit=limit,
            draws=batches_a_step(recipe, accelerator),
        )
    if not made.good:
        note = f"step {step} skipped: loss {loss_mean}, gradient norm {made.grad_norm}"
        progress(ProgressEvent("training", step, train.steps, note=note))
    idle = state.idle.see(made.idle, lambda: FLAT)
    if idle:
        progress(ProgressEvent("training", step, train.steps, note=idle))
    progress(ProgressEvent("training", step, train.steps, "", {"loss": loss_mean}))
    return {
        "step": step,
        "loss": loss_mean,
        "grad_norm": made.grad_norm,
        "learning_rate": made.learning_rate,
        "epoch": state.position / parts.order.epoch,
        "batches": shapes,
        "bad_steps": state.bad_steps,
        "seconds": dict(clock.seconds) | {"step": sum(clock.seconds.values())},
        "memory": dict(clock.memory),
    }


def batch_numbers(step: int, accumulation: int, accelerator: Accelerator) -> Iterator[int]:
    """This process's batches of a step, counted from 0, by their place in the endless sequence."""
    ranks = accelerator.num_processes
    for i in range(accumulation):
        yield (step * accumulation + i) * ranks + accelerator.process_index


def batches_a_step(recipe: FinetuneRecipe, accelerator: Accelerator) -> int:
    """Batches that one optimiser step draws, on all processes."""
    return recipe.train.gradient_accumulation * accelerator.num_processes


def _look_before(
    folder: FinetuneFolder,
    recipe: FinetuneRecipe,
    parts: FinetuneParts,
    state: TrainingState,
    progress: ProgressFn,
) -> None:
    """Keep the held-out loss and the samples of before the first step."""
    if not folder.base.exists():
        if state.step:
            raise TuningError(f"{folder.base} is missing; start a new run with another output")
        atomic_write(folder.base, json.dumps(measure(recipe, parts, progress)).encode())
    if state.step == 0:
        write_samples(recipe, parts, folder, 0, progress)


def _finish(
    folder: FinetuneFolder,
    recipe: FinetuneRecipe,
    parts: FinetuneParts,
    state: TrainingState,
    log: MetricsLog | None,
    progress: ProgressFn,
) -> dict[str, Any]:
    """Draw and measure what is exported, and export it; the others only sum up."""
    summary: dict[str, Any] = {
        "steps": state.step,
        "bad_steps": state.bad_steps,
        "clips": len(parts.survey.clips),
        "broken": [str(path) for path, _ in parts.survey.broken],
        "epochs": state.position / parts.order.epoch,
        "base": json.loads(folder.base.read_text()) if folder.base.exists() else None,
    }
    if log is None:
        return summary
    with exported_weights(parts.trained, state) as weights:
        write_samples(recipe, parts, folder, state.step, progress)
        summary["tuned"] = measure(recipe, parts, progress)
        export_trained(recipe, parts.generator.transformer, weights, folder)
    log.show({"step": state.step, **scalars(summary["tuned"])})
    text = json.dumps(summary, ensure_ascii=False, indent=1)
    atomic_write(folder.evaluation, text.encode())
    return summary
