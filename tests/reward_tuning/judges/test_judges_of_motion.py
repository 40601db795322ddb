"""The kinds that see motion, from a recipe's section to the judge, and those that only measure."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from reward_tuning.judges.judge import FramedJudge
from reward_tuning.judges.loading import load_judges
from reward_tuning.schema.judge_kinds import KINDS
from reward_tuning.schema.judge_roles import HeldOutSection
from reward_tuning.schema.recipe import Recipe
from rewards.kinds.consistency import Consistency
from rewards.kinds.motion import Flicker, MotionEnergy, MotionFlow
from rewards.kinds.sharpness import Sharpness
from rewards.loading import COMMON, loader_keywords
from tests.reward_tuning.recipes_for_tests import recipe_data
from tests.rewards.synthetic_clips import pan

MINE = (
    "motion_energy",
    "motion_flow",
    "flicker",
    "consistency",
    "vjepa2",
    "dynamic_degree",
    "sharpness",
)


@pytest.mark.parametrize("kind", MINE)
def test_a_kinds_own_keys_are_its_loaders_own_keywords_and_defaults(kind: str) -> None:
    parameters = loader_keywords(kind)
    own = {name: default for name, default in parameters.items() if name not in COMMON}
    fields = KINDS[kind].model_fields
    assert {name: fields[name].default for name in own} == own
    assert ("checkpoint" in fields) == ("checkpoint" in parameters)
    assert ("dtype" in fields) == ("dtype" in parameters)


def judges(*sections: dict[str, Any]) -> list[FramedJudge]:
    recipe = Recipe.model_validate(recipe_data(rewards=list(sections)))
    loaded = load_judges(recipe.rewards, 9, torch.device("cpu"))
    assert all(isinstance(judge, FramedJudge) for judge in loaded)
    return [judge for judge in loaded if isinstance(judge, FramedJudge)]


def test_sections_become_the_judges_they_describe() -> None:
    energy, flow, calm, alike = judges(
        {"kind": "motion_energy", "target": 0.03},
        {"kind": "motion_flow", "energy": 2.0, "weight": 0.5},
        {"kind": "flicker", "target": -0.01},
        {"kind": "consistency", "checkpoint": "tiny/clip.safetensors", "encoded_at_once": 3},
    )
    assert isinstance(energy.reward, MotionEnergy)
    assert isinstance(flow.reward, MotionFlow)
    assert (flow.reward.energy, flow.weight) == (2.0, 0.5)
    assert isinstance(calm.reward, Flicker)
    assert calm.target == -0.01
    assert isinstance(alike.reward, Consistency)
    assert alike.reward.encoded_at_once == 3
    x = pan(2, 64).clone().requires_grad_()
    loss, scores = energy.loss(x, ["-"], seeds=range(len(x)))
    assert float(scores) > 0.03  # above its target, so without a gradient
    (g,) = torch.autograd.grad(loss, x)
    assert float(g.abs().max()) == 0.0
    loss, _ = flow.loss(x, ["-"], seeds=range(len(x)))
    (g,) = torch.autograd.grad(loss, x)
    assert float(g.abs().max()) > 0.0


@pytest.mark.parametrize(
    "section", [{"kind": "sharpness"}, {"kind": "dynamic_degree", "checkpoint": "raft.pth"}]
)
def test_what_only_measures_is_trained_on_by_an_estimate_alone(section: dict[str, Any]) -> None:
    for gradient in (None, "exact"):
        wanted = rf"rewards.0.gradient\n.*{section['kind']} has no gradient; set gradient: group"
        with pytest.raises(ValueError, match=wanted):
            Recipe.model_validate(recipe_data(rewards=[section | {"gradient": gradient}]))
    recipe = Recipe.model_validate(recipe_data(rewards=[section | {"gradient": "paired"}]))
    assert recipe.rewards[0].kind == section["kind"]


def test_what_only_measures_is_a_held_out_reward() -> None:
    data = recipe_data()
    data["evaluation"] = {**data.get("evaluation", {}), "held_out_rewards": [{"kind": "sharpness"}]}
    recipe = Recipe.model_validate(data)
    (section,) = recipe.evaluation.held_out_rewards
    assert isinstance(section, HeldOutSection)
    (judge,) = load_judges([section], 9, torch.device("cpu"))
    assert isinstance(judge, FramedJudge)
    assert isinstance(judge.reward, Sharpness)
    assert judge.label == "sharpness_held_out"


def test_every_kind_names_no_file_or_one() -> None:
    with pytest.raises(ValueError, match="checkpoint"):
        Recipe.model_validate(recipe_data(rewards=[{"kind": "motion_energy", "checkpoint": "x"}]))
    with pytest.raises(ValueError, match="checkpoint"):
        Recipe.model_validate(recipe_data(rewards=[{"kind": "vjepa2"}]))
