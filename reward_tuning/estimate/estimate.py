"""What a run needs, before it starts: memory by phase, operations, hours, disk and downloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from reward_tuning.doctor.sizes import MOMENTS
from reward_tuning.errors import TuningError
from reward_tuning.estimate.cards import SHARE, Card
from reward_tuning.estimate.counted_recipe import counted_recipe
from reward_tuning.estimate.phase_memory import (
    OPTIMISER,
    Followed,
    Memory,
    followed,
    peak,
    phase_memory,
)
from reward_tuning.estimate.shapes import Shape, shape_of
from reward_tuning.estimate.step_cost import TERA, Cost, cost, largest_step
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.schema.recipe import Recipe

COUNTED_STEPS = 4
"""Steps whose operations are counted; the operations of others lie between them."""


@dataclass(frozen=True)
class RunTime:
    """Operations and time of a run.

    Attributes:
        step: Operations of one optimiser step, on one device.
        rows: These by what they are for, for one clip.
        evaluation: Operations of the whole evaluation at the end, on one device.
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
        """Hours of all steps and the evaluation, without guards and samples."""
        if self.rate is None:
            return None
        return (self.step * self.steps + self.evaluation) / self.rate / 3600


@dataclass(frozen=True)
class Estimate:
    """What a run needs.

    Attributes:
        recipe: The recipe.
        shape: Name of the networks' shapes.
        memory: Phase to part to bytes, on each device.
        followed: The same with all weights on the device and none packed.
        time: Operations and time; None where they were not asked for.
        notes: What is not counted.
    """

    recipe: Recipe
    shape: Shape
    memory: Memory
    followed: Followed
    time: RunTime | None
    notes: Sequence[str]

    @property
    def peak(self) -> tuple[str, float]:
        """The phase that needs most, and its bytes."""
        return peak(self.memory)


def estimate(
    recipe: Recipe,
    *,
    gpus: int = 1,
    rate: float | None = None,
    time: bool = True,
    progress: ProgressFn = silent,
) -> Estimate:
    """Estimate what a run needs, without loading weights.

    Args:
        recipe: Resolved.
        gpus: GPUs that share the run; 0 for the CPU, where nothing rests elsewhere.
        rate: Operations a second that the device keeps up; None where it is not known.
        time: Count operations, too.
        progress: Called between the parts of the work.

    Raises:
        TuningError: The shapes of the generator are not known.
    """
    shape = shape_of(recipe.generator)
    counted = counted_recipe(recipe, shape)
    progress(ProgressEvent("estimating", phase="memory"))
    seen = followed(counted.recipe, shape, largest_step(counted.recipe, shape), cpu=not gpus)
    memory = memory_of(recipe, shape, seen, gpus=gpus)
    if not time:
        return Estimate(recipe, shape, memory, seen, None, counted.notes)
    progress(ProgressEvent("estimating", phase="operations"))
    of_step = cost(recipe.output, counted.recipe, shape, most=COUNTED_STEPS)
    return Estimate(
        recipe, shape, memory, seen, _run_time(recipe, of_step, seen, rate), counted.notes
    )


def memory_of(recipe: Recipe, shape: Shape, seen: Followed, *, gpus: int) -> Memory:
    """Return the memory of a recipe that differs from a followed one in where its weights are."""
    memory = phase_memory(recipe, shape, seen.memory, gpus=gpus)
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


def _run_time(recipe: Recipe, of_step: Cost, seen: Followed, rate: float | None) -> RunTime:
    train, evaluation = recipe.train, recipe.evaluation
    clips = train.batch_size * train.gradient_accumulation
    at_once = evaluation.batch_size or train.batch_size
    steps = evaluation.steps or recipe.sampling.steps
    sides = 2 * evaluation.prompts + len(evaluation.strengths) * min(
        evaluation.strength_prompts, evaluation.prompts
    )
    each = (seen.sampled * steps + seen.judged) / at_once
    return RunTime(
        of_step.total * clips, of_step.rows, each * sides * evaluation.seeds, rate, train.steps
    )


def require_reward_tuning(recipe: object, name: str) -> Recipe:
    """Return a recipe that can be estimated.

    Raises:
        TuningError: It is a fine-tuning or a distillation.
    """
    if not isinstance(recipe, Recipe):
        raise TuningError(
            f"{name} is no reward tuning; estimate counts only these so far. `reward-tuning "
            f"doctor {name}` tells whether its weights fit"
        )
    return recipe
