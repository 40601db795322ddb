"""Sections of the methods in a recipe."""

from typing import Any, get_args

from reward_tuning.schema import methods as method_sections
from reward_tuning.schema.recipe import Recipe
from tests.reward_tuning.recipes_for_tests import recipe_data

NUMBERLESS = (
    "draft",
    "draft_lv",
    "alignprop",
    "refl",
    "leapalign",
    "flowbp_lagrange",
    "direct_align",
    "prfl",
    "awm",
    "nft",
)


LAST_STEPS = ("draft_k", "adjoint_matching")

METHOD_MODELS = get_args(get_args(method_sections.Method)[0])


def test_every_method_has_a_section() -> None:
    from reward_tuning.gradient.methods import METHODS

    kinds = [get_args(model.model_fields["kind"].annotation)[0] for model in METHOD_MODELS]
    assert kinds == list(METHODS)


def test_every_method_makes_a_plan_from_its_section() -> None:
    import torch

    from base_model.sampling.sigmas import sigma_table
    from reward_tuning.gradient.methods import METHODS

    for kind in METHODS:
        own = {"kind": kind} if kind in NUMBERLESS else {"kind": kind, "active_steps": 3}
        others: dict[str, Any] = {"rewards": [LATENT]} if kind == "prfl" else {}
        others |= {"train__clips_per_prompt": 2} if METHODS[kind].matches else {}
        recipe = Recipe.model_validate(recipe_data(method=own, **others))
        plan = recipe.method.plan(torch.Generator(), sigma_table(16))
        # the table's short last step is active on top of the three that count
        assert kind in NUMBERLESS or len(plan.active) == (4 if kind in LAST_STEPS else 3)


LATENT = {"kind": "latent", "checkpoint": "tiny/latent-clip.safetensors"}
