"""A recipe as the meta device can run it, and what that leaves out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reward_tuning.estimate.shapes import Shape
from reward_tuning.estimate.stand_in_judges import is_known
from reward_tuning.estimate.work import one_batch
from reward_tuning.schema.recipe import Recipe


@dataclass(frozen=True)
class CountedRecipe:
    """What can be counted of a recipe.

    Attributes:
        recipe: With one batch a step, and without what needs values or is not known.
        notes: What is not counted, a sentence each.
    """

    recipe: Recipe
    notes: tuple[str, ...]


def counted_recipe(recipe: Recipe, shape: Shape) -> CountedRecipe:
    """Leave out of a recipe what the meta device cannot run.

    Args:
        recipe: Resolved.
        shape: Shapes of its networks.
    """
    notes = []
    train: dict[str, Any] = {"compile": False, "replay": None}
    if recipe.train.replay is not None:
        notes.append("train.replay is not counted")
    if recipe.train.keep_graphs == "auto":
        train["keep_graphs"] = 0
        notes.append(
            f"train.keep_graphs: auto takes up to {recipe.train.keep_graphs_memory:g} GB more "
            "(train.keep_graphs_memory), and one forward pass less for each graph"
        )
    rewards: list[Any] = []
    held_out: list[Any] = []
    for section, known in (
        *((one, rewards) for one in recipe.rewards),
        *((one, held_out) for one in recipe.evaluation.held_out_rewards),
    ):
        if (elsewhere := getattr(section, "device", None)) is not None:
            notes.append(f"the judge {section.label} is not counted: it runs on {elsewhere}")
        elif getattr(section, "estimated", False) or recipe.method.matches:
            notes.append(f"the judge {section.label}, which has no backward pass, is not counted")
        elif is_known(section, shape):
            known.append(section)
        elif section.files or section.folders:
            notes.append(f"the judge {section.label} is not counted: its files are not here")
    if recipe.generator.vae_device is not None:
        notes.append(
            f"the decoder is counted on the run's device, though it runs on "
            f"{recipe.generator.vae_device}"
        )
    rollout, evaluation = recipe.rollout, recipe.evaluation
    if rollout.cache is not None and rollout.cache.kind != "taylor":
        notes.append("rollout.cache decides by values: every block counts as run")
        rollout = rollout.model_copy(update={"cache": None})
    if evaluation.cache is not None:
        notes.append("evaluation.cache: every step of the evaluation counts as run in full")
    counted = one_batch(recipe, **train).model_copy(
        update={
            "rewards": rewards,
            "rollout": rollout,
            "evaluation": evaluation.model_copy(
                update={"cache": None, "held_out_rewards": held_out}
            ),
        }
    )
    return CountedRecipe(counted, tuple(notes))
