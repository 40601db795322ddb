"""Everything that a distillation refuses, at once and before it loads anything."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from reward_tuning.distil.preflight import check_distil
from reward_tuning.distil.trainer import distil
from reward_tuning.errors import TuningError
from tests.reward_tuning.distil.few_steps import small_recipe
from tests.reward_tuning.tiny_run import HELD_OUT, TRAIN, write_world

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


def test_nothing_is_wrong(world: Path, tmp_path: Path) -> None:
    found = check_distil(small_recipe(world, tmp_path / "run"), CPU)
    assert (found.mistakes, found.missing) == ([], [])
    assert found.stream is not None
    assert [one.text for one in found.stream.prompts] == TRAIN
    assert [one.text for one in found.held_out] == HELD_OUT


def test_everything_is_refused_at_once_and_leaves_no_folder(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    for name in ("empty", "hollow"):
        (tmp_path / name).mkdir()
    wrong = (
        "generator.quantise=nf4",
        "train.optimiser=adamw-8bit",
        f"lora.init={tmp_path / 'empty'}",
        f"generator.adapter={tmp_path / 'hollow'}",
        "evaluation.prompts=4",
    )
    recipe = small_recipe(world, tmp_path / "run", *wrong)
    found = check_distil(recipe, CPU)
    assert len(found.mistakes) == 5
    with pytest.raises(TuningError) as refused:
        distil(recipe)
    told = str(refused.value)
    assert told == "\n".join(found.mistakes)
    for text in (
        "quantise",
        "optimiser=adamw-8bit",
        "lora.init: ",
        "generator.adapter: ",
        "2 to 3",
    ):
        assert text in told
    assert not (tmp_path / "run").exists()


def test_a_prompt_in_both_files_is_told(world: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared.txt"
    shared.write_text("\n".join([TRAIN[0], *HELD_OUT]), encoding="utf-8")
    told: list[str] = []
    recipe = small_recipe(world, tmp_path / "run", f"prompts.held_out={shared}")
    assert check_distil(recipe, CPU, lambda event: told.append(event.note)).mistakes == []
    assert any("is trained on, too" in note for note in told)
