"""Groups of clips that a recipe cannot have."""

from typing import Any

import pytest

from reward_tuning.schema.recipe import Recipe
from tests.reward_tuning.recipes_for_tests import recipe_data
from tests.reward_tuning.schema.test_recipe import first_error


@pytest.mark.parametrize(
    ("changes", "where", "told"),
    [
        (
            {"train__group": {"clips": 2}},
            ("group", "clips"),
            "more than train.clips_per_prompt = 2",
        ),
        (
            {"train__group": {"clips": 4}, "train__clips_per_prompt": 1},
            ("group", "keep"),
            "to keep one clip, set best or worst",
        ),
        (
            {"train__group": {"clips": 4, "steps": 3}, "sampling__strength": 0.9},
            ("group", "steps"),
            "sampling.strength below 1",
        ),
    ],
)
def test_a_group_that_cannot_be(changes: dict[str, Any], where: tuple[str, ...], told: str) -> None:
    pair = {"train__batch_size": 2, "train__clips_per_prompt": 2}
    found, text = first_error(**pair | changes)
    assert found == ("train", *where)
    assert told in text


def test_one_clip_of_a_group() -> None:
    changes = {"train__group": {"clips": 4, "keep": "worst"}, "train__clips_per_prompt": 1}
    group = Recipe.model_validate(recipe_data(**changes)).train.group
    assert group is not None
    assert (group.clips, group.keep, group.steps) == (4, "worst", None)


def test_latents_cannot_be_scored_in_a_group() -> None:
    changes: dict[str, Any] = {
        "method": {"kind": "prfl"},
        "rewards": [{"kind": "latent", "checkpoint": "latent.safetensors"}],
        "train__group": {"clips": 4, "keep": "worst"},
    }
    found, text = first_error(**changes)
    assert found == ("train", "group")
    assert "judges noisy latents" in text
