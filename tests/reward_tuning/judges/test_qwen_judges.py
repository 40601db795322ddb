"""Judges on Qwen2-VL in recipes: folders instead of files."""

from pathlib import Path

import pytest
import torch

from reward_tuning.errors import TuningError
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.judges.loading import load_judges
from reward_tuning.judges.missing import missing_judges
from reward_tuning.schema.judge_kinds import FOLDER_KEYS, QwenCriticSection
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.locate import locate_judge, locate_judge_folder
from reward_tuning.schema.recipe import Recipe
from rewards.core.locate import SHIPPED
from rewards.kinds.qwen_critic import QwenCritic
from tests.reward_tuning.recipes_for_tests import recipe_data, write_recipe
from tests.rewards import tiny_qwen
from tests.rewards.tiny_qwen import PROMPTS, bytes_clips, write_folder


def test_a_critics_section_becomes_the_critic(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "q", tiny_qwen.model())
    own = {"aspects": ["colour", "Is {prompt} fun?"], "count": 4, "gradient_checkpointing": True}
    pixels = {"min_pixels": 28 * 28, "max_pixels": 56 * 56}
    section = {"kind": "qwen_critic", "checkpoint": str(folder), "chunk": 1, **own, **pixels}
    recipe = Recipe.model_validate(recipe_data(rewards=[section]))
    (reward,) = recipe.rewards
    assert isinstance(reward, QwenCriticSection)
    assert reward.files == {}
    assert reward.folders == {"checkpoint": str(folder)}
    assert reward.identity == str(folder)
    (judge,) = load_judges(recipe.rewards, 9, torch.device("cpu"))
    assert isinstance(judge, FramedJudge)
    critic = judge.reward
    assert isinstance(critic, QwenCritic)
    assert list(critic.questions) == own["aspects"]
    assert critic.tower.frames.count == 4
    assert critic.tower.model.training  # transformers recomputes blocks in training mode alone
    scores = judge.scores(bytes_clips(2, 9, 56, 56).float() / 255, PROMPTS)
    assert scores.shape == (2,)


def test_folders_are_located_and_missed() -> None:
    assert FOLDER_KEYS["video_align"] == ("checkpoint", "base")
    assert FOLDER_KEYS["hpsv3"] == ("base",)
    here = SHIPPED / "tiny" / "qwen-critic"
    assert locate_judge_folder(".", here) == str(here.resolve())
    assert locate_judge_folder("tiny/qwen-critic", Path()) == "tiny/qwen-critic"
    assert locate_judge_folder("Qwen/Qwen2-VL-2B-Instruct", here) == "Qwen/Qwen2-VL-2B-Instruct"
    assert locate_judge_folder("qwen2-vl-7b", here) == "qwen2-vl-7b"
    with pytest.raises(TuningError, match="no such folder"):
        locate_judge_folder("nowhere", here)
    with pytest.raises(TuningError, match="no such judge"):
        locate_judge("owner/name", here)


@pytest.mark.parametrize(
    ("judge", "told"),
    [
        ({"kind": "hps", "checkpoint": "here"}, "here is a folder, .* such as here/model.safe"),
        (
            {"kind": "vjepa2", "checkpoint": "here/"},
            "here is a folder, but this judge is a single file",
        ),
        ({"kind": "hps", "checkpoint": "tiny/qwen-critic"}, "tiny/qwen-critic is a folder"),
        ({"kind": "aesthetic", "checkpoint": "a.pth", "tower": "here"}, "here is a folder"),
        ({"kind": "qwen_critic", "checkpoint": "a.pth"}, r"a\.pth is a file, .* name the folder"),
        (
            {"kind": "qwen_critic", "checkpoint": "tiny/hps.safetensors"},
            "hps.safetensors is a file",
        ),
        ({"kind": "video_align", "checkpoint": "here"}, "here is not a judge's folder: .*config"),
        ({"kind": "hpsv3", "checkpoint": "a.pth", "base": "a.pth"}, r"base: got .*is a file"),
    ],
)
def test_a_folder_for_a_file_and_a_file_for_a_folder_are_mistakes(
    tmp_path: Path, judge: dict[str, str], told: str
) -> None:
    path = write_recipe(tmp_path, rewards=[judge])
    (tmp_path / "here").mkdir()
    (tmp_path / "a.pth").touch()
    with pytest.raises(TuningError, match=told):
        load_recipe(path)


def test_a_missing_folder_is_told_with_the_command_that_fetches_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    section = {"kind": "video_align", "checkpoint": "video-reward", "base": "qwen2-vl-2b"}
    notes = missing_judges(Recipe.model_validate(recipe_data(rewards=[section])).rewards)
    told = "\n".join(notes)
    assert "hf download KwaiVGI/VideoReward" in told
    assert "hf download Qwen/Qwen2-VL-2B-Instruct" in told
