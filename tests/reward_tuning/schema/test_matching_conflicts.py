"""What a recipe of a method that matches clips must have, and cannot have."""

from __future__ import annotations

from typing import Any

import pytest

from reward_tuning.schema.recipe import Recipe
from tests.reward_tuning.recipes_for_tests import recipe_data
from tests.reward_tuning.schema.test_recipe import first_error

GROUPS: dict[str, Any] = {
    "method": {"kind": "awm"},
    "train__batch_size": 4,
    "train__clips_per_prompt": 2,
}
HPS = {"kind": "hps", "checkpoint": "hps-v2.1"}


@pytest.mark.parametrize("kind", ["awm", "nft"])
def test_a_recipe_of_one(kind: str) -> None:
    allowed = {
        "train__anchor": 0.1,
        "train__motion": 0.1,
        "train__updates_per_rollout": 2,
        "train__replay": {"weight": 1.0},
        "train__group": {"clips": 4},
        "rollout": {"cache": 0.1},
        "sampling__negative": "none",
        "rewards": [{**HPS, "target": 0.3, "augmentation": {"flip": True}}],
    }
    recipe = Recipe.model_validate(recipe_data(**GROUPS | {"method": {"kind": kind}} | allowed))
    assert recipe.method.matches


@pytest.mark.parametrize("kind", ["awm", "nft"])
def test_one_clip_has_nothing_to_be_compared_with(kind: str) -> None:
    where, told = first_error(method={"kind": kind})
    assert where == ("train", "clips_per_prompt")
    assert told == (
        f"method {kind} compares clips of one prompt; set it to 2 or more, and train.batch_size to "
        "a multiple of it"
    )


@pytest.mark.parametrize(
    ("changes", "where", "told"),
    [
        ({"train__active_sets": 2}, ("train", "active_sets"), "raise method.draws instead"),
        ({"train__restarts": 1}, ("train", "restarts"), "each from its own noise"),
        ({"train__keep_graphs": 2}, ("train", "keep_graphs"), "has no active steps"),
        ({"train__steps_at_once": 2}, ("train", "steps_at_once"), "has no active steps"),
        ({"train__normalise_steps": True}, ("train", "normalise_steps"), "has no active steps"),
        ({"train__adjoint_limit": 2.0}, ("train", "adjoint_limit"), "has no active steps"),
        (
            {"train__anchor_steps": 1, "train__anchor": 0.1},
            ("train", "anchor_steps"),
            "has no active steps",
        ),
        ({"train__merge": "pcgrad"}, ("train", "merge"), "has no reward gradient"),
        ({"train__decoded": "first"}, ("train", "decoded"), "scores whole clips"),
        ({"train__decoder": "small"}, ("train", "decoder"), "scores whole clips"),
        ({"train__repulsion": 0.1}, ("train", "repulsion"), "the same penalty"),
        ({"sampling__negative": "joint"}, ("sampling", "negative"), "positive branch alone"),
        (
            {"sampling__divide_by_guidance": False},
            ("sampling", "divide_by_guidance"),
            "has no reward gradient",
        ),
        (
            {"rewards": [HPS | {"robust_radius": 0.01}]},
            ("rewards", 0, "robust_radius"),
            "takes only scores",
        ),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_keys_without_effect(
    changes: dict[str, Any], where: tuple[str | int, ...], told: str
) -> None:
    found, text = first_error(**GROUPS | changes)
    assert found == where
    assert "method awm" in text
    assert told in text


def test_latents_are_judged_by_one_other_method_alone() -> None:
    where, text = first_error(**GROUPS, rewards=[{"kind": "latent", "checkpoint": "a.safetensors"}])
    assert where == ("rewards", 0, "kind")
    assert "only method prfl" in text


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [("anchor", 0.1, "set method.strength"), ("normalise_steps", True, "has an end")],
)
def test_nothing_else_ends_adjoint_matching(key: str, value: object, told: str) -> None:
    method = {"kind": "adjoint_matching", "active_steps": 3}
    where, text = first_error(method=method, **{f"train__{key}": value})
    assert where == ("train", key)
    assert told in text
