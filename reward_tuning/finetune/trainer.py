"""Fine-tuning in the frame of every training: one step on the user's clips, one evaluation.

A step draws its batches, noise levels and dropout by its number, so a resumed run ends in the bytes
of an uninterrupted one. Several processes, started by a launcher, share each step; only
the main one writes files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator

from base_model.memory.modes import MODES
from base_model.training.velocity_loss import norm_limit
from reward_tuning.errors import TuningError
from reward_tuning.files.atomic_write import atomic_write
from reward_tuning.finetune.exporting import export_trained
from reward_tuning.finetune.folder import FinetuneFolder
from reward_tuning.finetune.held_out import held_out_columns, measure, write_held_out_samples
from reward_tuning.finetune.parts import FinetuneParts, load_finetune_parts
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.finetune.step import training_loss
from reward_tuning.finetune.trained import exported_weights
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.runs.frame import RunResult, run_training
from reward_tuning.runs.guards import finetune_guards
from reward_tuning.runs.metrics import MetricsLog
from reward_tuning.runs.ranks import mean_of_all
from reward_tuning.runs.shared_weights import SharedWeights
from reward_tuning.runs.training_state import Trained, TrainingState, initial_state
from reward_tuning.runs.update import Average, PhaseClock, StepMeans, take_step

ZERO_GRADIENT = (
    "The loss does not depend on the trained weights: check lora.targets and flow.most_error"
)


def finetune(
    recipe: FinetuneRecipe, *, resume: bool = False, progress: ProgressFn = silent
) -> RunResult:
    """Train as a recipe says on its clips, and export the result into the run folder.

    Args:
        recipe: The resolved recipe (`load_finetune_recipe`).
        resume: Continue the run in the folder from its newest checkpoint. A finished run is
            returned as it is, unless the recipe has more steps.
        progress: Receives every event, many a step.

    Raises:
        TuningError: The folder holds a run already (or none to resume, or another recipe's), no
            clip can be used, the disk is full, or too many steps in a row were not finite.
        GeneratorError: The generator cannot be loaded.
    """
    folder = FinetuneFolder(recipe.output)

    def load(accelerator: Accelerator, report: ProgressFn) -> Finetuning:
        parts = load_finetune_parts(recipe, accelerator.device, report)
        return Finetuning(recipe, parts, folder, accelerator, report)

    return run_training(folder, recipe, recipe.train, load, resume=resume, progress=progress)


@dataclass(frozen=True)
class Finetuning:
    """Fine-tuning, as the frame drives it (`reward_tuning.runs.frame.Training`).

    Attributes:
        recipe: The resolved recipe.
        parts: Everything that was loaded.
        folder: The run folder.
        accelerator: Processes of the run.
        progress: Receives every event.
    """

    recipe: FinetuneRecipe
    parts: FinetuneParts
    folder: FinetuneFolder
    accelerator: Accelerator
    progress: ProgressFn

    @property
    def trained(self) -> Trained:
        """The adapter, or every weight."""
        return self.parts.trained

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Hashes of the checkpoint and of the list of usable clips."""
        return self.parts.fingerprints

    @property
    def draws_a_step(self) -> tuple[int, str]:
        """Batches that an optimiser step draws."""
        return batches_a_step(self.recipe, self.accelerator), "batches"

    @property
    def weights(self) -> SharedWeights:
        """The generator's weights."""
        return SharedWeights(self.parts.generator.transformer, self.recipe.generator.memory)

    def describe_fingerprint(self, name: str) -> str:
        """Name the content that a fingerprint was made of."""
        return f"content of {name}"

    def prepare(self, *, resume: bool) -> None:
        """Write which clips can be used; a resumed run has found the same ones."""
        if self.accelerator.is_main_process and not resume:
            atomic_write(self.folder.clips, self.parts.survey.report().encode())

    def initial_state(self) -> TrainingState:
        """Return the state before the first step; its position counts batches."""
        train = self.recipe.train
        return initial_state(train, self.trained, finetune_guards(train))

    def before(self, state: TrainingState, log: MetricsLog | None) -> None:
        """Measure the held-out loss and draw the sample clips before the first step."""
        if log is None:
            return
        if not self.folder.base.exists():
            # The weights have changed, so it is too late to measure the base.
            if state.step:
                raise TuningError(
                    f"{self.folder.base} is missing; start a new run with another output"
                )
            found = measure(self.recipe, self.parts, self.progress)
            atomic_write(self.folder.base, json.dumps(found).encode())
        if state.step == 0:
            write_held_out_samples(self.recipe, self.parts, self.folder, 0, self.progress)
        if state.logged == 0:
            base = json.loads(self.folder.base.read_text())
            log.track({"step": 0, **held_out_columns(base)})

    def step(self, state: TrainingState) -> dict[str, Any]:
        """Make one update."""
        return finetune_step(self.recipe, self.parts, state, self.accelerator, self.progress)

    def evaluate(self, state: TrainingState) -> Mapping[str, Any]:
        """Draw sample clips and measure the held-out loss with the weights to be exported."""
        recipe, parts = self.recipe, self.parts
        with exported_weights(parts.trained, state):
            write_held_out_samples(recipe, parts, self.folder, state.step, self.progress)
            return held_out_columns(measure(recipe, parts, self.progress))

    def watch(self, state: TrainingState, row: Mapping[str, Any], log: MetricsLog | None) -> None:
        """Do nothing: `evaluate` measures the held-out loss, and no rule acts on it."""

    def ended(self) -> bool:
        """Return False: a fine-tuning makes all its steps."""
        return False

    def finish(self, state: TrainingState, log: MetricsLog | None) -> dict[str, Any]:
        """Draw, measure and export; processes other than the main one only count."""
        recipe, parts, folder = self.recipe, self.parts, self.folder
        base = json.loads(folder.base.read_text()) if folder.base.exists() else None
        summary: dict[str, Any] = {
            "steps": state.step,
            "bad_steps": state.bad_steps,
            "clips": len(parts.survey.clips),
            "broken": [str(path) for path, _ in parts.survey.broken],
            "epochs": state.position / parts.order.epoch,
            "base": base,
        }
        if log is not None:
            with exported_weights(parts.trained, state) as weights:
                write_held_out_samples(recipe, parts, folder, state.step, self.progress)
                summary["tuned"] = measure(recipe, parts, self.progress)
                export_trained(
                    recipe, parts.generator.transformer, weights, folder, parts.fingerprints
                )
            log.track({"step": state.step, **held_out_columns(summary["tuned"])})
            text = json.dumps(summary, ensure_ascii=False, indent=1)
            atomic_write(folder.evaluation, text.encode())
        # Once more at the end: the first warning has long scrolled away.
        if parts.survey.broken:
            self.progress(ProgressEvent("finished", note=parts.survey.warning()))
        return summary


def finetune_step(
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
    train, draws = recipe.train, batches_a_step(recipe, accelerator)

    def backward(clock: PhaseClock, shown: dict[str, float]) -> Average:
        del shown  # the loss of a single batch says too little to be displayed
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

        def average() -> StepMeans:
            mean = mean_of_all(losses, accelerator)
            epoch = (state.position + draws) / parts.order.epoch
            return StepMeans(
                mean,
                {"loss": mean},
                {"epoch": epoch, "batches": shapes},
                lambda: ZERO_GRADIENT,
                step_norm_limit(recipe, state.step),
            )

        return average

    return take_step(
        train,
        parts.trained,
        state,
        accelerator,
        progress,
        backward,
        draws,
        meets=MODES[recipe.generator.memory].blocks_shared,
    )


def step_norm_limit(recipe: FinetuneRecipe, step: int) -> float | None:
    """Return the limit of the gradient's norm after so many steps; None for no clipping."""
    train = recipe.train
    if train.max_grad_norm is None:
        return None
    return norm_limit(
        step,
        train.max_grad_norm,
        first_ratio=train.first_norm_ratio,
        decay_steps=train.norm_decay_steps,
    )


def batch_numbers(step: int, accumulation: int, accelerator: Accelerator) -> Iterator[int]:
    """Yield this process's batches of a step, as places in the endless sequence.

    The processes take turns, so that n processes draw in one step what one process draws in n
    accumulated batches.

    Args:
        step: Optimiser steps done before this one.
        accumulation: Batches of one process a step.
        accelerator: Processes of the run.
    """
    ranks = accelerator.num_processes
    for i in range(accumulation):
        yield (step * accumulation + i) * ranks + accelerator.process_index


def batches_a_step(recipe: FinetuneRecipe, accelerator: Accelerator) -> int:
    """Return how many batches one optimiser step draws, on all processes."""
    return recipe.train.gradient_accumulation * accelerator.num_processes
