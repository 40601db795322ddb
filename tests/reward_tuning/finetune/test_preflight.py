"""Everything that a fine-tuning refuses, at once and before it fetches anything."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from reward_tuning.errors import TuningError
from reward_tuning.finetune import preflight
from reward_tuning.finetune.preflight import check_finetune
from reward_tuning.finetune.trainer import finetune
from reward_tuning.schema.sections import LoraSection
from tests.reward_tuning.finetune.clip_folder import small_recipe, write_world_of_clips

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world_of_clips(tmp_path_factory.mktemp("world"))


def test_nothing_is_wrong(world: Path, tmp_path: Path) -> None:
    found = check_finetune(small_recipe(world, tmp_path / "run"), CPU)
    assert (found.mistakes, found.channels) == ([], 16)
    assert found.training_set is not None
    assert len(found.training_set.survey.broken) == 3
    found.refuse()


def test_a_fine_tuning_refuses_everything_at_once_and_leaves_no_folder(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    (tmp_path / "empty").mkdir()
    wrong = (
        "generator.quantise=nf4",
        "train.optimiser=adamw-8bit",
        f"lora.init={tmp_path / 'empty'}",
        "data.held_out=5",
    )
    recipe = small_recipe(world, tmp_path / "run", *wrong)
    found = check_finetune(recipe, CPU)
    assert len(found.mistakes) == 4
    with pytest.raises(TuningError) as refused:
        finetune(recipe)
    assert str(refused.value) == "\n".join(found.mistakes)
    told = str(refused.value)
    for text in ("quantise", "optimiser=adamw-8bit", "lora.init: ", "data.held_out: got 5"):
        assert text in told
    assert not (tmp_path / "run").exists()


def test_a_generator_that_is_not_here_is_only_asked_for_its_kind_to_begin(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And then decides that control files are checked, too."""
    rows = [{"file_path": f"square-{i}.mp4", "text": "a"} for i in range(4)]
    rows[0]["control_file_path"] = "missing.mp4"
    (world / "control.json").write_text(json.dumps(rows))
    settings = (f"data.metadata={world / 'control.json'}", "lora=null")
    recipe = small_recipe(world, tmp_path / "run", *settings)
    monkeypatch.setattr(preflight, "folder_if_here", lambda generator: None)

    class Control:
        channels = 48

    fetched: list[object] = []

    def fetch(generator: object) -> type[Control]:
        fetched.append(generator)
        return Control

    monkeypatch.setattr(preflight, "generator_kind", fetch)
    found = check_finetune(recipe, CPU)
    assert (found.channels, fetched) == (None, [])
    assert found.training_set is not None
    assert found.training_set.survey.broken == ()
    worse = recipe.model_copy(
        update={"lora": LoraSection(rank=2, alpha=2.0, init=str(tmp_path))}  # an empty folder
    )
    found = check_finetune(worse, CPU, fetch=True)
    assert (len(found.mistakes), found.channels, fetched) == (1, None, [])
    found = check_finetune(recipe, CPU, fetch=True)
    assert (found.channels, len(fetched)) == (48, 1)
    assert found.training_set is not None
    assert [path.name for path, _ in found.training_set.survey.broken] == ["missing.mp4"]
