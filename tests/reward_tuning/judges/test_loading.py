"""From a judge's section to the judge: what is passed on, what is refused."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from pydantic import ValidationError, create_model
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.judges.loading import load_judges
from reward_tuning.judges.offload import judge_modules
from reward_tuning.schema.black_box_kinds import BLACK_BOXES
from reward_tuning.schema.gradient_conflicts import gradient_conflicts
from reward_tuning.schema.judge_kinds import HpsSection, VideoAlignSection
from reward_tuning.schema.judge_roles import FrameRewardSection
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.parts import check_gradients
from rewards.core.shown_clip import Question
from rewards.kinds.hps import HpsReward
from rewards.kinds.http import HttpReward
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
    more = {"weight": 2.0, "std": 0.5, "target": 0.4, "frames": 2, "chunk": 3}
    own = {"dtype": "bfloat16", "relative": relative, "augmentation": {"crop": 0.1}}
    recipe = Recipe.model_validate(recipe_data(rewards=[hps | more | own]))
    (judge,) = load_judges(recipe.rewards, 9, CPU)
    assert isinstance(judge, FramedJudge)
    assert (judge.weight, judge.std, judge.target, judge.positions) == (2.0, 0.5, 0.4, (0, 8))
    assert judge.augmentation is not None
    assert judge.augmentation.crop == 0.1
    reward = judge.reward
    assert isinstance(reward, HpsReward)
    assert (reward.chunk, reward.name, reward.tower.dtype) == (3, "hps", torch.bfloat16)
    assert reward.relative is not None
    assert (reward.relative.positive, reward.relative.k) == ("good {prompt}", 0.5)


def test_a_judge_on_a_device_of_its_own(hps: dict[str, object]) -> None:
    """The run's device is `meta`, on which nothing has values."""
    recipe = Recipe.model_validate(recipe_data(rewards=[hps | {"device": "cpu"}]))
    (own,) = load_judges(recipe.rewards, 9, torch.device("meta"))
    assert isinstance(own.reward, HpsReward)
    assert own.reward.device == CPU
    assert own.reward.modules
    assert judge_modules([own]) == []  # it does not rest
    recipe = Recipe.model_validate(recipe_data(rewards=[hps]))
    (other,) = load_judges(recipe.rewards, 9, CPU)
    assert len(judge_modules([own, other])) == 1


def test_scores_come_back_and_so_does_the_gradient(hps: dict[str, object]) -> None:
    class Elsewhere:
        """Scores on the CPU whatever it is shown; stands for a card of its own."""

        name = "elsewhere"

        def __call__(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
            return torch.ones(len(frames))

    away = FramedJudge(Elsewhere(), "elsewhere", (0,), stays=True)
    frames = torch.rand(2, 1, 3, 16, 16, device="meta")
    assert away.scores(frames, ["a", "b"]).device.type == "meta"
    found = []
    for change in ({}, {"device": "cpu"}):
        recipe = Recipe.model_validate(recipe_data(rewards=[hps | change]))
        (judge,) = load_judges(recipe.rewards, 5, CPU)
        assert isinstance(judge, FramedJudge)
        shown = torch.rand(2, 5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        shown.requires_grad_()
        loss, _ = judge.loss(shown, ["a", "b"], seeds=range(len(shown)))
        loss.backward()
        found.append(shown.grad)
    assert found[0] is not None
    assert found[0].norm() > 0
    assert torch.equal(found[0], found[1])


def test_a_judge_that_shares_the_text_encoder_has_its_device() -> None:
    judge = {"kind": "qwen_critic", "checkpoint": "generator", "dtype": "bfloat16"}
    Recipe.model_validate(recipe_data(rewards=[judge]))
    with pytest.raises(ValidationError, match="shares the text encoder, which is on the run's"):
        Recipe.model_validate(recipe_data(rewards=[judge | {"device": "cpu"}]))
    with pytest.raises(ValidationError, match="so the text encoder is on the run's device with it"):
        changed = recipe_data(rewards=[judge], generator__text_encoder_device="cpu")
        Recipe.model_validate(changed)


def test_a_prompt_that_no_one_reads_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "judge.py"
    path.write_text(
        "class Mine:\n    reads_text = False\n"
        "    def __call__(self, frames, prompts): return frames.mean(dim=(1, 2, 3, 4))"
    )
    own = {"kind": "python", "checkpoint": str(path), "prompt": "a clean picture"}
    recipe = Recipe.model_validate(recipe_data(rewards=[own]))
    with pytest.raises(TuningError, match="python reads no text, so its prompt 'a clean picture'"):
        load_judges(recipe.rewards, 3, CPU)
    align = {"kind": "video_align", "checkpoint": "tiny/video-align", "prompt": "a clip"}
    assert VideoAlignSection.model_validate(align | {"axis": "TA"}).prompt == "a clip"
    with pytest.raises(ValidationError, match="axis MQ is scored before the prompt"):
        VideoAlignSection.model_validate(align | {"axis": "MQ"})


def test_a_judge_of_whole_clips_has_no_worst_frame(tmp_path: Path) -> None:
    path = tmp_path / "judge.py"
    path.write_text(
        "class Mine:\n    def __call__(self, frames, prompts): return frames.mean(dim=(1, 2, 3, 4))"
    )
    own = {"kind": "python", "checkpoint": str(path)}
    for kind, value in (("soft_min", {"sharpness": 4.0}), ("best", {"share": 0.3})):
        over = {"over_frames": {"kind": kind, **value}}
        recipe = Recipe.model_validate(recipe_data(rewards=[own | over]))
        with pytest.raises(TuningError, match=rf"python scores whole clips.*{kind}.*derive the"):
            load_judges(recipe.rewards, 9, CPU)


class MeasuringSection(HpsSection):
    """A kind that only measures."""

    differentiable: ClassVar[bool] = False


def test_a_judge_without_a_gradient_needs_an_estimate(
    hps: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = create_model("Trained", __base__=(MeasuringSection, FrameRewardSection))
    (conflict,) = gradient_conflicts(("rewards", 0), trained.model_validate(hps), None, None)
    assert conflict.path == ("rewards", 0, "gradient")
    assert "or move the judge to evaluation.held_out_rewards" in conflict.text

    monkeypatch.setattr(HpsReward, "differentiable", False)
    recipe = Recipe.model_validate(recipe_data(rewards=[hps]))
    with pytest.raises(TuningError, match=r"the judge hps has no gradient; .*held_out_rew"):
        check_gradients(recipe, load_judges(recipe.rewards, 9, CPU))
    estimated = Recipe.model_validate(recipe_data(rewards=[hps | {"gradient": "paired"}]))
    (judge,) = load_judges(estimated.rewards, 9, CPU)
    assert isinstance(judge, FramedJudge)
    assert judge.gradient == "paired"
    check_gradients(estimated, [judge])
    section = HpsSection.model_validate(hps)
    assert load_judges([section], 9, CPU)[0].label == "hps"


def test_a_judge_outside_the_process_is_sent_the_recipes_prompt() -> None:
    """Whatever the clips' own prompts are; answers to another one are not taken for it."""
    frames = torch.full((2, 1, 3, 4, 4), 0.5)
    keys = []
    for prompt in ("a clean picture", "a sharp picture"):
        own = {"kind": "http", "url": "http://localhost:9/score", "prompt": prompt}
        (judge,) = load_judges([BLACK_BOXES["http"].model_validate(own)], 1, CPU)
        assert isinstance(judge, FramedJudge)
        reward = judge.reward
        assert isinstance(reward, HttpReward)
        assert not reward.reads_text  # clips need no prompts
        asked: list[Question] = []

        def answered(questions: Sequence[Question], asked: list[Question] = asked) -> list[float]:
            asked += questions
            return [0.5] * len(questions)

        reward.ask = answered  # type: ignore[method-assign]
        assert judge.scores(frames, ["a cat", "a dog"]).tolist() == [0.5, 0.5]
        assert [question.prompt for question in asked] == [prompt]
        keys.append(reward._key(asked[0]))
    assert keys[0] != keys[1]
