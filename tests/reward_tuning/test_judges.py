"""From a judge's section to the judge: what is passed on, what is refused."""

import json
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from pydantic import create_model

from reward_tuning.errors import TuningError
from reward_tuning.judge_sections import FrameRewardSection, HpsSection
from reward_tuning.judges import FramedJudge, load_judges
from reward_tuning.recipe import Recipe, judge_conflicts
from rewards.hps import HpsReward
from tests.reward_tuning.recipes_for_tests import recipe_data
from tests.rewards.tiny_clip import ARCHITECTURE, flat_file, random_state

CPU = torch.device("cpu")


@pytest.fixture
def hps(tmp_path: Path) -> dict[str, object]:
    return {
        "kind": "hps",
        "checkpoint": str(
            flat_file(tmp_path, random_state(ARCHITECTURE), architecture=json.dumps(ARCHITECTURE))
        ),
    }


def test_a_section_becomes_the_judge_it_describes(hps: dict[str, object]) -> None:
    relative = {"positive": "good {prompt}", "negative": "bad {prompt}", "k": 0.5}
    more = {"weight": 2.0, "unit": 0.5, "target": 0.4, "frames": 2, "chunk": 3}
    own = {"dtype": "bfloat16", "relative": relative, "augmentation": {"crop": 0.1}}
    recipe = Recipe.model_validate(recipe_data(rewards=[hps | more | own]))
    (judge,) = load_judges(recipe.rewards, 9, CPU)
    assert isinstance(judge, FramedJudge)
    assert (judge.weight, judge.unit, judge.target, judge.positions) == (2.0, 0.5, 0.4, (0, 8))
    assert judge.augmentation is not None
    assert judge.augmentation.crop == 0.1
    reward = judge.reward
    assert isinstance(reward, HpsReward)
    assert (reward.chunk, reward.name, reward.tower.dtype) == (3, "hps", torch.bfloat16)
    assert reward.relative is not None
    assert (reward.relative.positive, reward.relative.k) == ("good {prompt}", 0.5)


class MeasuringSection(HpsSection):
    """A kind that only measures."""

    evaluation_only: ClassVar[bool] = True


def test_a_kind_that_only_measures_is_no_reward(
    hps: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = create_model("Trained", __base__=(MeasuringSection, FrameRewardSection))
    (conflict,) = judge_conflicts(("rewards", 0), trained.model_validate(hps), None)
    assert conflict.path == ("rewards", 0, "kind")
    assert "has no gradient to train on; name it under evaluation.held_out_rewards" in conflict.text

    monkeypatch.setattr(HpsReward, "evaluation_only", True)
    recipe = Recipe.model_validate(recipe_data(rewards=[hps]))
    with pytest.raises(TuningError, match=r"hps is for the evaluation only.*held_out_rewards"):
        load_judges(recipe.rewards, 9, CPU)
    section = HpsSection.model_validate(hps)
    assert load_judges([section], 9, CPU)[0].label == "hps"
