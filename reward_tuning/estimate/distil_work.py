"""Memory and operations of a distillation to few steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from accelerate import Accelerator

from base_model.core.tokens import token_count
from reward_tuning.distil.recipe import DistilRecipe
from reward_tuning.distil.trainer import distil_step
from reward_tuning.estimate.distil_parts import random_distil_parts
from reward_tuning.estimate.evaluation_batch import FOLLOWED_STEPS, evaluate_batch
from reward_tuning.estimate.flop_meter import Counted
from reward_tuning.estimate.live_memory import LiveMemory
from reward_tuning.estimate.phase_memory import (
    JUDGES,
    Followed,
    Measured,
    Networks,
    along,
    follow,
    text_memory,
)
from reward_tuning.estimate.shapes import Shape
from reward_tuning.estimate.stand_in_judges import is_known
from reward_tuning.estimate.step_cost import META, Rows, along_blocks, metered, rows_of
from reward_tuning.estimate.step_parts import REST, TRANSFORMER, Parts
from reward_tuning.estimate.stored import EVALUATION
from reward_tuning.estimate.work import BRANCHES, StepWork, one_batch
from reward_tuning.runs.training_state import initial_state

_STUDENT = ("positive", "negative", "both")
ROWS: Rows = {
    "teacher": (("gradient",), ("base",), ("forward",)),
    "student forward": (("gradient",), _STUDENT, ("forward",)),
    "student recomputed": (("gradient",), _STUDENT, ("again",)),
    "student backward": (("gradient",), _STUDENT, ("backward",)),
}


class DistilWork:
    """What a distillation holds and computes (`reward_tuning.estimate.work.Work`).

    Args:
        recipe: Resolved.
        shape: Shapes of its networks.
    """

    def __init__(self, recipe: DistilRecipe, shape: Shape) -> None:
        self._recipe, self._shape, self._counted = recipe, shape, one_batch(recipe)

    @property
    def notes(self) -> Sequence[str]:
        """The judges that are not counted."""
        every = self._recipe.evaluation.held_out_rewards
        return [
            f"the judge {one.label} is not counted: its files are not here"
            for one in every
            if not is_known(one, self._shape) and (one.files or one.folders)
        ]

    @property
    def rows(self) -> int:
        """Tokens of a call of the transformer."""
        tokens = token_count(*self._recipe.size)
        return BRANCHES * self._recipe.train.batch_size * (self._shape.text[0] + tokens)

    def follow(self, *, cpu: bool) -> Followed:
        """Follow a step, and a batch of the evaluation."""
        found = along(lambda of: self._follow(of, cpu=cpu), self._shape)
        judges = found.memory["gradient"].get(JUDGES, 0.0)
        text = text_memory(self._recipe.generator, self._shape, judges)
        return Followed({"text": text} | found.memory, found.work)

    def step(self) -> StepWork:
        """Count one step: all have the same shapes."""
        every = along_blocks(self._metered, self._shape)
        train = self._recipe.train
        each = {what: number / train.batch_size for what, number in every.items()}
        rows = rows_of(each, ROWS)
        return StepWork(sum(rows.values()) * train.batch_size * train.gradient_accumulation, rows)

    def evaluation(self, seen: Followed, gpus: int) -> float:
        """Return the operations of the evaluation of all sides, whose prompts the devices share."""
        section, few = self._recipe.evaluation, self._recipe.student.steps
        guided = self._recipe.teacher.guidance_scale != 1
        at_once = section.batch_size or self._recipe.train.batch_size
        guided_step = seen.operations(EVALUATION, TRANSFORMER) / FOLLOWED_STEPS
        plain_step = guided_step / BRANCHES if guided else guided_step
        sampled = section.steps * guided_step + few * plain_step
        sides = 2
        if section.few_steps:
            sampled, sides = sampled + few * plain_step, sides + 1
            if guided:
                sampled, sides = sampled + few * guided_step, sides + 1
        judged = seen.operations_but(EVALUATION, TRANSFORMER) * sides
        return (sampled + judged) / at_once * math.ceil(section.prompts / gpus)

    def _follow(self, of: Shape, *, cpu: bool) -> Measured:
        where, recipe = Parts(), self._counted
        parts = random_distil_parts(recipe, of, META)
        state = initial_state(recipe.train, parts.trained, [])
        networks = Networks(
            parts.teacher.generator,
            parts.judges,
            parts.trained,
            state,
            waiting=self._recipe.train.gradient_accumulation > 1,
        )

        def body(memory: LiveMemory) -> None:
            del memory
            distil_step(recipe, parts, state, Accelerator(cpu=True), where.on_progress)
            for one in parts.trained.parameters:
                one.grad = None
            where.go(REST, EVALUATION)
            clips = recipe.evaluation.batch_size or recipe.train.batch_size
            evaluate_batch(parts.teacher, parts.judges, parts.held_out[0], clips)
            where.go(REST, REST)

        return follow(networks, where, body, cpu=cpu)

    def _metered(self, of: Shape) -> Mapping[Counted, int]:
        recipe, parts = self._counted, random_distil_parts(self._counted, of, META)
        state, accelerator = initial_state(recipe.train, parts.trained, []), Accelerator(cpu=True)
        return metered(
            parts.teacher.generator,
            parts.judges,
            lambda tell: distil_step(recipe, parts, state, accelerator, tell),
        )
