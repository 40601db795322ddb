"""Sections of a recipe other than methods and judges."""

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from reward_tuning.schema.recipe import Recipe
from reward_tuning.schema.sections import LORA_PRESETS, LoraPreset
from tests.reward_tuning.recipes_for_tests import recipe_data


def first_error(**changes: Any) -> tuple[tuple[int | str, ...], str]:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(recipe_data(**changes))
    found = caught.value.errors()
    assert len(found) == 1, found
    return found[0]["loc"], found[0]["msg"]


def test_list_of_targets() -> None:
    recipe = Recipe.model_validate(recipe_data(lora__targets=["attn1.to_q", "attn1.to_v"]))
    assert recipe.lora.targets == ("attn1.to_q", "attn1.to_v")


def test_presets_are_those_of_the_adapter() -> None:
    from reward_tuning.lora.presets import PRESETS

    assert tuple(PRESETS) == LORA_PRESETS == get_args(LoraPreset)


def test_rollout_options_that_do_not_go_together() -> None:
    where, text = first_error(rollout={"dtype": "bfloat16"})  # the weights of this recipe, too
    assert where == ("rollout", "dtype")
    assert "bfloat16 already" in text
    allowed = recipe_data(rollout={"dtype": "bfloat16"}, generator__dtype="float32")
    assert Recipe.model_validate(allowed).rollout.dtype == "bfloat16"


def test_what_compiled_blocks_do_not_go_with() -> None:
    where, text = first_error(train__compile=True, rollout={"cache": 0.1})
    assert where == ("train", "compile")
    assert "cannot be combined with rollout.cache=first-block" in text
    _, text = first_error(train__compile=True, evaluation__cache="teacache")
    assert "cannot be combined with evaluation.cache=teacache" in text
    together = recipe_data(train__compile=True, rollout={"cache": "taylor"})
    assert Recipe.model_validate(together).train.compile
    for key, value in (("memory", "block-offload"), ("quantise", "fp8")):
        where, text = first_error(train__compile=True, **{f"generator__{key}": value})
        assert where == ("train", "compile")
        assert f"cannot be combined with generator.{key}" in text


def test_the_former_key_of_compilation() -> None:
    """Recipes in older run folders list it as off."""
    older = Recipe.model_validate(recipe_data(rollout={"compile": False}))
    assert older == Recipe.model_validate(recipe_data())
    where, text = first_error(rollout={"compile": True})
    assert where == ("rollout",)
    assert "the key `compile` is now train.compile" in text
