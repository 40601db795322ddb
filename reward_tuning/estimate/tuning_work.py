"""Memory and operations of a reward tuning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

from accelerate import Accelerator

from base_model.core.tokens import token_count
from reward_tuning.estimate.counted_recipe import CountedRecipe, counted_recipe
from reward_tuning.estimate.evaluation_batch import FOLLOWED_STEPS, evaluate_batch
from reward_tuning.estimate.live_memory import LiveMemory
from reward_tuning.estimate.phase_memory import (
    JUDGES,
    Followed,
    Measured,
    Networks,
    along,
    follow,
    name_judges,
    text_memory,
)
from reward_tuning.estimate.random_parts import random_parts
from reward_tuning.estimate.shapes import Shape
from reward_tuning.estimate.stand_in_judges import is_known, judges_for_shape
from reward_tuning.estimate.step_cost import META, cost, largest_step
from reward_tuning.estimate.step_parts import REST, TRANSFORMER, Parts
from reward_tuning.estimate.stored import EVALUATION
from reward_tuning.estimate.work import BRANCHES, COUNTED_STEPS, StepWork
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.parts import RunParts
from reward_tuning.tuning.trainer import optimiser_step, start


class TuningWork:
    """What a reward tuning holds and computes (`reward_tuning.estimate.work.Work`).

    Args:
        recipe: Resolved.
        shape: Shapes of its networks.
    """

    def __init__(self, recipe: Recipe, shape: Shape) -> None:
        self._recipe, self._shape = recipe, shape

    @cached_property
    def _counted(self) -> CountedRecipe:
        return counted_recipe(self._recipe, self._shape)

    @property
    def notes(self) -> Sequence[str]:
        """What is not counted."""
        return self._counted.notes

    @property
    def rows(self) -> int:
        """Tokens of a call of the transformer."""
        sampling = self._recipe.sampling
        tokens = token_count(sampling.frames, sampling.height, sampling.width)
        return BRANCHES * self._recipe.train.batch_size * (self._shape.text[0] + tokens)

    def follow(self, *, cpu: bool) -> Followed:
        """Follow the step that holds most, and a batch of an evaluation."""
        recipe, shape = self._counted.recipe, self._shape
        step = largest_step(recipe, shape)
        waiting = self._recipe.train.gradient_accumulation > 1
        found = along(lambda of: follow_step(recipe, of, step, cpu=cpu, waiting=waiting), shape)
        text = text_memory(
            recipe.generator, shape, found.memory.get("rollout", {}).get(JUDGES, 0.0)
        )
        return Followed({"text": text} | found.memory, found.work)

    def step(self) -> StepWork:
        """Count steps that are spread over the run's plans."""
        train = self._recipe.train
        found = cost(self._recipe.output, self._counted.recipe, self._shape, most=COUNTED_STEPS)
        return StepWork(
            found.total * train.batch_size * train.gradient_accumulation,
            found.rows,
        )

    def evaluation(self, seen: Followed, gpus: int) -> float:
        """Return the operations of the evaluation at the end, which the devices share."""
        evaluation = self._recipe.evaluation
        at_once = evaluation.batch_size or self._recipe.train.batch_size
        steps = evaluation.steps or self._recipe.sampling.steps
        prompts = math.ceil(evaluation.prompts / gpus)
        strengths = math.ceil(min(evaluation.strength_prompts, evaluation.prompts) / gpus)
        clips = (2 * prompts + len(evaluation.strengths) * strengths) * evaluation.seeds
        sampled = seen.operations(EVALUATION, TRANSFORMER) / FOLLOWED_STEPS
        judged = seen.operations_but(EVALUATION, TRANSFORMER)
        return (sampled * steps + judged) / at_once * clips


def follow_step(
    recipe: Recipe, shape: Shape, step: int, *, cpu: bool = False, waiting: bool = False
) -> Measured:
    """Follow one optimiser step and one batch of an evaluation.

    Args:
        recipe: Resolved, as `counted_recipe` leaves it.
        shape: Shapes of the networks.
        step: Index of the step, from 0: it decides the plan.
        cpu: Count what convolutions take for themselves on a CPU.
        waiting: Let the gradient of an earlier batch wait for the update.
    """
    where = Parts()
    parts = random_parts(recipe, shape, META)
    state = start(recipe, parts)
    networks = Networks(
        parts.sampler.generator, parts.judges, parts.trained, state, waiting=waiting
    )

    def body(memory: LiveMemory) -> None:
        state.step = step
        optimiser_step(recipe, parts, state, Accelerator(cpu=True), where.on_progress)
        _evaluate(memory, recipe, shape, parts, where)

    return follow(networks, where, body, cpu=cpu)


def _evaluate(
    memory: LiveMemory, recipe: Recipe, shape: Shape, parts: RunParts, where: Parts
) -> None:
    """Sample, decode and judge one batch, as an evaluation does."""
    for one in parts.trained.parameters:
        one.grad = None
    frames = recipe.sampling.frames
    held_out = [one for one in recipe.evaluation.held_out_rewards if is_known(one, shape)]
    others = judges_for_shape(held_out, shape, frames, META)
    name_judges(memory, others)
    where.go(REST, EVALUATION)  # after the judges are made, which takes their memory twice here
    clips = recipe.evaluation.batch_size or recipe.train.batch_size
    evaluate_batch(parts.sampler, [*parts.judges, *others], parts.stream.prompts[0], clips)
    where.go(REST, REST)
