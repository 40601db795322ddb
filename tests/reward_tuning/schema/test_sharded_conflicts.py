"""What shared weights cannot be combined with."""

from __future__ import annotations

from typing import Any

import pytest

from reward_tuning.finetune.recipe import generator_conflicts
from reward_tuning.finetune.sections import BaseSection
from reward_tuning.schema.recipe import Recipe
from tests.reward_tuning.recipes_for_tests import recipe_data
from tests.reward_tuning.schema.test_recipe import first_error

SHARDED = {"generator__memory": "sharded"}
MEMORY = ("generator", "memory")
SERVER = {"kind": "http", "url": "http://localhost:1", "gradient": "group"}
PAIRS: dict[str, Any] = {"train__batch_size": 4, "train__clips_per_prompt": 2}


def test_a_recipe_that_shares() -> None:
    recipe = Recipe.model_validate(
        recipe_data(**SHARDED, train__keep_graphs=1, train__anchor=0.1, train__anchor_steps=1)
    )
    assert recipe.generator.memory == "sharded"


@pytest.mark.parametrize(
    ("changes", "where", "told"),
    [
        ({"generator__quantise": "fp8"}, MEMORY, "quantise=fp8"),
        ({"train__updates_per_rollout": 2}, MEMORY, "updates_per_rollout above 1"),
        ({"rollout": {"cache": 0.1}}, MEMORY, "rollout.cache, by which"),
        ({**PAIRS, "method": {"kind": "nft"}}, MEMORY, "the method nft, whose updates"),
        ({**PAIRS, "rewards": [SERVER]}, MEMORY, "judges outside the process"),
        ({"train__compile": True}, ("train", "compile"), "generator.memory=sharded"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    changes: dict[str, Any], where: tuple[str, ...], told: str
) -> None:
    found, text = first_error(**SHARDED, **changes)
    assert found == where
    assert told in text
    recipe_data(**changes)
    Recipe.model_validate(recipe_data(**changes))  # allowed where each has the weights


def test_all_weights_of_a_finetuning_are_not_shared() -> None:
    section = BaseSection(checkpoint="tiny", memory="sharded")
    (conflict,) = generator_conflicts(section, lora=False)
    assert conflict.path == MEMORY
    assert list(generator_conflicts(section, lora=True)) == []
    packed = BaseSection(checkpoint="tiny", memory="sharded", quantise="fp8")
    (conflict,) = generator_conflicts(packed, lora=True)
    assert "packed weights" in conflict.text
