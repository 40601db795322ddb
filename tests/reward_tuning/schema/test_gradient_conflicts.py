"""Where a judge's gradient comes from: what is refused, and the next step that is named."""

from __future__ import annotations

from typing import Any

import pytest

from reward_tuning.schema.recipe import Recipe
from tests.reward_tuning.recipes_for_tests import recipe_data


def test_a_method_that_takes_only_scores_estimates_nothing() -> None:
    data = recipe_data(method={"kind": "awm"}, rewards=[{"kind": "sharpness"}])
    data["train"] = data["train"] | {"clips_per_prompt": 2, "batch_size": 2}
    assert Recipe.model_validate(data).rewards[0].kind == "sharpness"
    data["rewards"][0]["gradient"] = "group"
    with pytest.raises(ValueError, match="method awm takes only scores; leave it out"):
        Recipe.model_validate(data)


def test_an_estimated_judge_sees_whole_clips_whatever_is_decoded() -> None:
    judge = {"kind": "flicker"}
    data = recipe_data(rewards=[judge])
    data["train"] = data["train"] | {"decoded": "random-window", "clips_per_prompt": 2}
    data["train"]["batch_size"] = 2
    with pytest.raises(ValueError, match="may show it only 1"):
        Recipe.model_validate(data)
    data["rewards"] = [judge | {"gradient": "group"}]
    assert Recipe.model_validate(data).rewards


PAIRS = {"kind": "http", "url": "http://localhost/", "pairwise": True}


def test_a_judge_of_pairs_needs_clips_to_compare() -> None:
    def recipe(judge: dict[str, Any], **train: Any) -> Recipe:
        data = recipe_data(rewards=[PAIRS | judge])
        data["train"] = data["train"] | train
        return Recipe.model_validate(data)

    two = {"clips_per_prompt": 2, "batch_size": 2}
    assert recipe({"gradient": "paired"}).rewards
    assert recipe({"gradient": "group"}, **two).rewards
    with pytest.raises(ValueError, match=r"pairwise\n  compares clips of one prompt: set train"):
        recipe({"gradient": "group"})
    with pytest.raises(ValueError, match=r"train\.group scores more than those"):
        recipe({"gradient": "group"}, **two, group={"clips": 4})


@pytest.mark.parametrize(
    ("judge", "train", "said"),
    [
        ({"gradient": "group"}, {}, "train.clips_per_prompt to 2 or more"),
        ({"gradient": "paired", "robust_radius": 0.1}, {}, "has no effect with gradient: paired"),
        ({}, {"pairs": 2}, "no judge under rewards has gradient: paired"),
        ({"gradient": "paired"}, {"motion": 0.1}, "and every judge is estimated"),
    ],
)
def test_keys_without_an_effect_are_refused(
    judge: dict[str, Any], train: dict[str, Any], said: str
) -> None:
    data = recipe_data()
    data["rewards"] = [data["rewards"][0] | judge]
    data["train"] = data["train"] | train
    with pytest.raises(ValueError, match=said):
        Recipe.model_validate(data)
