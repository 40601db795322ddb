"""What an estimate asks of a kind of training: its memory, its operations, its evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from reward_tuning.distil.recipe import DistilRecipe
from reward_tuning.estimate.phase_memory import Followed
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.schema.optimiser_sections import AdamW
from reward_tuning.schema.recipe import Recipe

BRANCHES = 2
"""Guidance branches in one call of the transformer."""
COUNTED_STEPS = 4
"""Steps whose operations are counted; the operations of others lie between them."""
AnyTraining = TypeVar("AnyTraining", Recipe, FinetuneRecipe, DistilRecipe)


def one_batch(recipe: AnyTraining, **train: Any) -> AnyTraining:
    """Return a recipe with one batch a step, and an optimiser that the meta device can run.

    Args:
        recipe: Resolved.
        train: Further values of its section `train`.
    """
    changes = {"gradient_accumulation": 1, "optimiser": AdamW(), **train}
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=changes)})


@dataclass(frozen=True)
class StepWork:
    """Operations of one optimiser step.

    Attributes:
        total: All of them, on one device.
        rows: By what they are for, for one clip.
    """

    total: float
    rows: Mapping[str, float]


class Work(Protocol):
    """One kind of training of one recipe, as the meta device can follow it."""

    @property
    def notes(self) -> Sequence[str]:
        """What is not counted, a sentence each."""

    @property
    def rows(self) -> int:
        """Tokens of a call of the transformer, of all clips and branches."""

    def follow(self, *, cpu: bool) -> Followed:
        """Follow memory and operations of the largest step and of an evaluation.

        Args:
            cpu: Count what convolutions take for themselves on a CPU.
        """

    def step(self) -> StepWork:
        """Count the operations of a step, the mean over the run."""

    def evaluation(self, seen: Followed, gpus: int) -> float:
        """Return the operations of all evaluations, on the device that does most of them.

        Args:
            seen: What was followed.
            gpus: Devices that share the run, 1 or more.
        """
