"""The judges that are never trained on, at work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from base_model.memory.offload import Offload
from reward_tuning.tuning.held_out_judges import held_out_judges
from tests.reward_tuning.tiny_run import tiny_recipe, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize(("memory", "rests"), [("resident", False), ("offload", True)])
def test_they_rest_where_the_memory_mode_says_so(
    world: Path, tmp_path: Path, memory: str, rests: bool
) -> None:
    recipe = tiny_recipe(world, tmp_path, f"generator.memory={memory}")
    before = Offload([], torch.device("cpu"))
    judges, offload = held_out_judges(recipe, before, torch.device("cpu"))
    assert [judge.label for judge in judges] == ["clip_held_out"]
    assert offload.absent == rests
    with offload.at_work():
        assert not offload.absent


def test_there_may_be_none(world: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(world, tmp_path, "evaluation.held_out_rewards=[]")
    before = Offload([], torch.device("cpu"))
    judges, offload = held_out_judges(recipe, before, torch.device("cpu"))
    assert (judges, offload) == ([], before)
