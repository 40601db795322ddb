"""Where recipes and the files they name are found."""

from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.schema.loading import load_recipe
from tests.reward_tuning.recipes_for_tests import told_once, write_recipe


@pytest.mark.parametrize("value", ["nothing", "./a/b", "a/b/c", "gone/model.safetensors/x"])
def test_missing_generator(tmp_path: Path, value: str) -> None:
    line = told_once(write_recipe(tmp_path, generator__checkpoint=value))
    assert line.startswith(f"generator.checkpoint: got '{value}'; ")
    assert "hub id" in line


@pytest.mark.parametrize("value", ["nothing", "tiny/hps.pt", "./owner/name/file.pt", "a/b"])
def test_missing_judge(tmp_path: Path, value: str) -> None:
    line = told_once(write_recipe(tmp_path), f"rewards.0.checkpoint={value}")
    assert line.startswith(f"rewards.0.checkpoint: got '{value}'; no such judge")
    assert "hps-v2.1" in line


def test_hub_file_is_a_judge(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path), ["rewards.0.checkpoint=xswu/HPSv2/HPS_v2.1.pt"])
    assert recipe.rewards[0].checkpoint == "xswu/HPSv2/HPS_v2.1.pt"
    pinned = ["rewards.0.checkpoint=owner/name/some/file.pt@v1.0-3"]
    assert load_recipe(write_recipe(tmp_path), pinned).rewards[0].checkpoint.endswith("@v1.0-3")


def test_missing_prompts(tmp_path: Path) -> None:
    line = told_once(write_recipe(tmp_path, prompts__held_out="gone.jsonl"))
    assert line.startswith("prompts.held_out: got 'gone.jsonl'; no such prompt file")
    assert str(tmp_path / "gone.jsonl") in line


def test_missing_recipe() -> None:
    with pytest.raises(TuningError, match=r"no recipe 'tiny-drtune-hbs'.*tiny-drtune-hps"):
        load_recipe("tiny-drtune-hbs")


def test_recipe_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="is a folder"):
        load_recipe(tmp_path)
