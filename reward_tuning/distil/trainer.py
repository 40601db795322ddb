"""Distillation in the frame of every training: one step, one evaluation.

A step draws its prompts and noise by position, so a resumed run ends in the bytes of an
uninterrupted one. Several processes, started by a launcher, share each step and the evaluation;
only the main one writes files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator

from base_model.memory.modes import MODES
from reward_tuning.distil.evaluation import finish, write_samples
from reward_tuning.distil.folder import DistilFolder
from reward_tuning.distil.parts import DistilParts, load_distil_parts
from reward_tuning.distil.recipe import DistilRecipe
from reward_tuning.distil.step import distil_batch
from reward_tuning.progress import ProgressFn, silent
from reward_tuning.report.at_end import report_at_end
from reward_tuning.runs.frame import RunResult, run_training
from reward_tuning.runs.guards import finetune_guards
from reward_tuning.runs.launching import is_main_process
from reward_tuning.runs.metrics import MetricsLog
from reward_tuning.runs.ranks import mean_of_all
from reward_tuning.runs.shared_weights import SharedWeights
from reward_tuning.runs.training_state import Trained, TrainingState, initial_state
from reward_tuning.runs.update import Average, PhaseClock, StepMeans, take_step
from reward_tuning.seeds import derive_seed

ZERO_GRADIENT = "The loss does not depend on the trained weights: check lora.targets"


def distil(
    recipe: DistilRecipe, *, resume: bool = False, progress: ProgressFn = silent
) -> RunResult:
    """Train a few-step adapter as a recipe says, evaluate it and export it into the run folder.

    Args:
        recipe: The resolved recipe (`load_distil_recipe`).
        resume: Continue the run in the folder from its newest checkpoint. A finished run is
            returned as it is, unless the recipe has more steps.
        progress: Receives every event, many a step.

    Raises:
        TuningError: The folder holds a run already (or none to resume, or another recipe's), a
            prompt file is wrong, the disk is full, or too many steps in a row were not finite.
        GeneratorError: The generator cannot be loaded.
        RewardError: A judge cannot be loaded.
    """
    folder = DistilFolder(recipe.output)

    def load(accelerator: Accelerator, report: ProgressFn) -> Distillation:
        prompts = recipe.train.steps * clips_a_step(recipe, accelerator)
        parts = load_distil_parts(recipe, accelerator.device, prompts, report)
        return Distillation(recipe, parts, folder, accelerator, report)

    done = run_training(folder, recipe, recipe.train, load, resume=resume, progress=progress)
    if is_main_process():
        report_at_end(done.folder, progress)
    return done


@dataclass(frozen=True)
class Distillation:
    """Distillation, as the frame drives it (`reward_tuning.runs.frame.Training`).

    Attributes:
        recipe: The resolved recipe.
        parts: Everything that was loaded.
        folder: The run folder.
        accelerator: Processes of the run.
        progress: Receives every event.
    """

    recipe: DistilRecipe
    parts: DistilParts
    folder: DistilFolder
    accelerator: Accelerator
    progress: ProgressFn

    @property
    def trained(self) -> Trained:
        """The adapter."""
        return self.parts.trained

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Hashes of the checkpoints and the prompts."""
        return self.parts.fingerprints

    @property
    def draws_a_step(self) -> tuple[int, str]:
        """Clips that an optimiser step draws."""
        return clips_a_step(self.recipe, self.accelerator), "clips"

    @property
    def weights(self) -> SharedWeights:
        """The generator's weights."""
        transformer = self.parts.teacher.generator.transformer
        return SharedWeights(transformer, self.recipe.generator.memory)

    def describe_fingerprint(self, name: str) -> str:
        """Name the content that a fingerprint was made of."""
        return f"content of {name}"

    def prepare(self, *, resume: bool) -> None:
        """Do nothing: the folder needs no further files."""

    def initial_state(self) -> TrainingState:
        """Return the state before the first step; its position counts clips."""
        train = self.recipe.train
        return initial_state(train, self.trained, finetune_guards(train))

    def before(self, state: TrainingState, log: MetricsLog | None) -> None:
        """Draw clips of the base, sampled as the student samples."""
        if log is not None and state.step == 0:
            write_samples(self.recipe, self.parts, self.folder, 0, None, self.progress)

    def step(self, state: TrainingState) -> dict[str, Any]:
        """Make one update of the adapter."""
        return distil_step(self.recipe, self.parts, state, self.accelerator, self.progress)

    def evaluate(self, state: TrainingState) -> Mapping[str, Any]:
        """Draw the student's sample clips of now; scores are only taken at the end."""
        adapter = state.exported(self.trained)
        write_samples(self.recipe, self.parts, self.folder, state.step, adapter, self.progress)
        return {}

    def watch(self, state: TrainingState, row: Mapping[str, Any], log: MetricsLog | None) -> None:
        """Do nothing: no rule acts on a distillation."""

    def ended(self) -> bool:
        """Return False: a distillation makes all its steps."""
        return False

    def finish(self, state: TrainingState, log: MetricsLog | None) -> dict[str, Any]:
        """Export the adapter and evaluate it."""
        del log
        adapter = state.exported(self.trained)
        return finish(
            self.recipe, self.parts, self.accelerator, self.folder, adapter, self.progress
        )


def distil_step(
    recipe: DistilRecipe,
    parts: DistilParts,
    state: TrainingState,
    accelerator: Accelerator,
    progress: ProgressFn = silent,
) -> dict[str, Any]:
    """Make one update, or skip it where loss or gradient is not finite.

    Returns:
        The step's row of metrics.jsonl.
    """
    train = recipe.train
    size, rank = train.batch_size, accelerator.process_index

    def backward(clock: PhaseClock, shown: dict[str, float]) -> Average:
        del shown  # the loss of a single batch says too little to be displayed
        batches = []
        for number in range(train.gradient_accumulation):
            with clock("gradient"):
                place = state.position + (number * accelerator.num_processes + rank) * size
                losses = distil_batch(
                    parts,
                    parts.stream.batch_at(place, size),
                    [derive_seed(recipe.seed, "noise", place + i) for i in range(size)],
                    share=1.0 / train.gradient_accumulation,
                )
            batches.append(losses)

        def average() -> StepMeans:
            by_phase = [
                mean_of_all(list(of_phase), accelerator) for of_phase in zip(*batches, strict=True)
            ]
            mean = sum(by_phase) / len(by_phase)
            columns = {"loss_by_phase": {f"{k + 1}": value for k, value in enumerate(by_phase)}}
            return StepMeans(
                mean, {"loss": mean}, columns, lambda: ZERO_GRADIENT, train.max_grad_norm
            )

        return average

    draws = clips_a_step(recipe, accelerator)
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


def clips_a_step(recipe: DistilRecipe, accelerator: Accelerator) -> int:
    """Return how many clips one optimiser step draws, on all processes."""
    train = recipe.train
    return train.batch_size * train.gradient_accumulation * accelerator.num_processes
