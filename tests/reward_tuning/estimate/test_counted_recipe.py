"""What the meta device leaves out of a recipe, and that it says so."""

from __future__ import annotations

from benchmarks.small_shape import SMALL
from reward_tuning.estimate.counted_recipe import counted_recipe
from reward_tuning.estimate.shapes import shape_of
from reward_tuning.schema.loading import load_recipe


def notes(name: str, *overrides: str) -> tuple[list[str], list[str]]:
    recipe = load_recipe(name, overrides, check_files=False)
    counted = counted_recipe(recipe, shape_of(recipe.generator))
    return [one.label for one in counted.recipe.rewards], list(counted.notes)


def test_a_plain_recipe_is_counted_whole() -> None:
    judges, said = notes("easyanimate-v5.1-12b-hps")
    assert judges == ["hps"]
    assert not said


def test_one_batch_is_a_step() -> None:
    recipe = load_recipe(
        "tiny-demo", ["train.gradient_accumulation=3", "train.optimiser=adamw-8bit"]
    )
    counted = counted_recipe(recipe, SMALL).recipe
    assert counted.train.gradient_accumulation == 1
    assert counted.train.optimiser.kind == "adamw"


def test_judges_without_files_and_without_gradient_are_named() -> None:
    judges, said = notes(
        "easyanimate-v5.1-12b-hps",
        "rewards.0.kind=image_reward",
        "rewards.0.checkpoint=image-reward",
        "rewards.0.chunk=null",
    )
    assert judges == []
    assert any("image_reward is not counted: its files are not here" in one for one in said)
    judges, said = notes("tiny-paired-hps")
    assert judges == []
    assert any("hps, which has no backward pass, is not counted" in one for one in said)


def test_caches_and_graphs_that_fit_a_budget_are_named() -> None:
    _, said = notes("tiny-demo", "train.keep_graphs=auto")
    assert any(one.startswith("train.keep_graphs: auto takes up to") for one in said)
    assert any(one.startswith("evaluation.cache") for one in said)
    _, said = notes("tiny-demo", "train.keep_graphs=0", "rollout.cache=0.1")
    assert any(one.startswith("rollout.cache decides by values") for one in said)
