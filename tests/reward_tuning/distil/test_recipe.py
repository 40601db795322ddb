"""Recipes of `distil`: every mistake is reported, and a shipped one loads back equal."""

from __future__ import annotations

from pathlib import Path

import pytest

from reward_tuning.distil.recipe import DistilRecipe, load_distil_recipe
from reward_tuning.errors import TuningError
from reward_tuning.evidence.any_recipe import load_any_recipe
from reward_tuning.finetune.recipe import load_finetune_recipe
from reward_tuning.schema.loading import dump_recipe, load_recipe
from reward_tuning.schema.locate import distil_recipes


@pytest.mark.parametrize("name", [recipe.name for recipe in distil_recipes()])
def test_a_shipped_recipe_loads_back_equal(name: str, tmp_path: Path) -> None:
    recipe = load_any_recipe(name, check_files=False)
    assert isinstance(recipe, DistilRecipe)
    (tmp_path / "a.yaml").write_text(dump_recipe(recipe))
    assert load_distil_recipe(tmp_path / "a.yaml", check_files=False) == recipe


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("prompts.held_out=tiny/train.jsonl", "nothing would be held out"),
        ("evaluation.steps=4", "more than student.steps = 4"),
        ("student.steps=1", "student.steps: got 1"),
        ("student.frames=8", "must be 4k"),
        ("teacher.steps_per_phase=0", "teacher.steps_per_phase: got 0"),
        ("teacher.guidance=3", "teacher.guidance: .*guidance_scale"),
        ("evaluation.held_out_rewards.1.name=hps_held_out", "has the same name"),
        ("evaluation.held_out_rewards.0.kind=latent", "sees decoded frames"),
        ("evaluation.primary=hpss", "evaluation.primary: got .hpss.*hps_held_out"),
        ("generator.adapter=tiny-4-stepz", "generator.adapter: got .*did you mean tiny-4-steps"),
    ],
)
def test_a_mistake_names_its_key(override: str, said: str) -> None:
    with pytest.raises(TuningError, match=said):
        load_distil_recipe("distil/tiny-4-steps", [override])


def test_another_verbs_recipe_is_sent_to_its_verb() -> None:
    with pytest.raises(TuningError, match="belongs to `reward-tuning run`"):
        load_distil_recipe("tiny-demo")
    for load in (load_recipe, load_finetune_recipe):
        with pytest.raises(TuningError, match="belongs to `reward-tuning distil`"):
            load("distil/tiny-4-steps")
