"""What a run needs, before it starts: memory by phase, operations, hours, disk and downloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from base_model.memory.modes import MODES
from reward_tuning.distil.recipe import DistilRecipe
from reward_tuning.doctor.sizes import MOMENTS
from reward_tuning.estimate.cards import SHARE, Card
from reward_tuning.estimate.distil_work import DistilWork
from reward_tuning.estimate.finetune_work import FinetuneWork
from reward_tuning.estimate.phase_memory import OPTIMISER, Followed, Memory, peak, phase_memory
from reward_tuning.estimate.shapes import Shape, shape_of
from reward_tuning.estimate.step_cost import TERA
from reward_tuning.estimate.tuning_work import TuningWork
from reward_tuning.estimate.work import Work
from reward_tuning.evidence.any_recipe import AnyRecipe
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.progress import ProgressEvent, ProgressFn, silent


@dataclass(frozen=True)
class RunTime:
    """Operations and time of a run.

    Attributes:
        step: Operations of one optimiser step, on one device.
        rows: These by what they are for, for one clip.
        evaluation: Operations of all evaluations, on the device that does most of them.
        rate: Operations a second of the device; None where it is not known.
        steps: Optimiser steps.
    """

    step: float
    rows: Mapping[str, float]
    evaluation: float
    rate: float | None
    steps: int

    @property
    def seconds_a_step(self) -> float | None:
        """Seconds of one optimiser step."""
        return None if self.rate is None else self.step / self.rate

    @property
    def hours(self) -> float | None:
        """Hours of all steps and evaluations."""
        if self.rate is None:
            return None
        return (self.step * self.steps + self.evaluation) / self.rate / 3600


@dataclass(frozen=True)
class Estimate:
    """What a run needs.

    Attributes:
        recipe: The recipe.
        shape: Shapes of the networks.
        memory: Phase to part to bytes, on each device.
        followed: The same with all weights on the device and none packed.
        time: Operations and time; None where they were not asked for.
        notes: What is not counted.
        rows: Tokens of a call of the transformer, of all clips and branches.
    """

    recipe: AnyRecipe
    shape: Shape
    memory: Memory
    followed: Followed
    time: RunTime | None
    notes: Sequence[str]
    rows: int

    @property
    def peak(self) -> tuple[str, float]:
        """The phase that needs most, and its bytes."""
        return peak(self.memory)

    def stored_as(self, recipe: AnyRecipe, *, gpus: int) -> Estimate:
        """Return the estimate of a recipe that differs in where and how weights are stored alone.

        Args:
            recipe: The other recipe.
            gpus: GPUs that share the run; 0 for the CPU.
        """
        memory = _memory(recipe, self.shape, self.followed, gpus=gpus, rows=self.rows)
        return replace(self, recipe=recipe, memory=memory)


def estimate(
    recipe: AnyRecipe,
    *,
    gpus: int = 1,
    rate: float | None = None,
    time: bool = True,
    progress: ProgressFn = silent,
) -> Estimate:
    """Estimate what a run needs, without loading weights.

    Args:
        recipe: Resolved, of any verb that trains.
        gpus: GPUs that share the run; 0 for the CPU, where nothing rests elsewhere.
        rate: Operations a second that the device keeps up; None where it is not known.
        time: Count operations, too.
        progress: Called between the parts of the work.

    Raises:
        TuningError: The shapes of the generator are not known, or the clips of a fine-tuning cannot
            be used.
    """
    shape = shape_of(recipe.generator)
    work = work_of(recipe, shape, progress)
    progress(ProgressEvent("estimating", phase="memory"))
    seen = work.follow(cpu=not gpus)
    memory = _memory(recipe, shape, seen, gpus=gpus, rows=work.rows)
    notes = list(work.notes)
    if MODES[recipe.generator.memory].blocks_shared and gpus < 2:
        notes.append("generator.memory=sharded needs several processes; give --gpus")
    found = Estimate(recipe, shape, memory, seen, None, notes, work.rows)
    if not time:
        return found
    progress(ProgressEvent("estimating", phase="operations"))
    step, evaluation = work.step(), work.evaluation(seen, max(gpus, 1))
    return replace(found, time=RunTime(step.total, step.rows, evaluation, rate, recipe.train.steps))


def work_of(recipe: AnyRecipe, shape: Shape, progress: ProgressFn = silent) -> Work:
    """Return what a recipe's training holds and computes.

    Args:
        recipe: Resolved.
        shape: Shapes of its networks.
        progress: Called while the clips of a fine-tuning are checked.

    Raises:
        TuningError: The clips of a fine-tuning cannot be used.
    """
    match recipe:
        case FinetuneRecipe():
            return FinetuneWork(recipe, shape, progress)
        case DistilRecipe():
            return DistilWork(recipe, shape)
        case _:
            return TuningWork(recipe, shape)


def _memory(recipe: AnyRecipe, shape: Shape, seen: Followed, *, gpus: int, rows: int) -> Memory:
    memory = phase_memory(recipe.generator, shape, seen.memory, gpus=gpus, rows=rows)
    if recipe.train.optimiser.kind != "adamw-8bit":
        return memory
    average = 4 if recipe.train.ema_decay is not None else 0
    left = (MOMENTS["adamw-8bit"] + average) / (MOMENTS["adamw"] + average)
    return {
        phase: {part: size * (left if part == OPTIMISER else 1) for part, size in parts.items()}
        for phase, parts in memory.items()
    }


def of_card(estimated: Estimate, card: Card, rate: float | None) -> Estimate:
    """Return the estimate with the time on a GPU.

    Args:
        estimated: With its operations.
        card: The GPU.
        rate: Operations a second that it keeps up; None takes a share of the data sheet's.
    """
    if estimated.time is None:
        return estimated
    if rate is None and card.tflops is not None:
        rate = card.tflops * TERA * SHARE
    return replace(estimated, time=replace(estimated.time, rate=rate))
