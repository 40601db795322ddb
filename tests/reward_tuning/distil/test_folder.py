"""The run folder of a distillation has its own recipe."""

from pathlib import Path

import pytest

from reward_tuning.distil.folder import DistilFolder
from reward_tuning.errors import TuningError
from tests.reward_tuning.distil.few_steps import small_recipe
from tests.reward_tuning.tiny_run import write_world


def test_it_reads_its_own_recipe(tmp_path: Path) -> None:
    world = write_world(tmp_path / "world")
    recipe = small_recipe(world, tmp_path / "run")
    folder = DistilFolder(recipe.output)
    assert folder.open(recipe, resume=False) is None
    folder.begin(recipe, {})
    assert folder.open(recipe, resume=True) is None
    with pytest.raises(TuningError, match=r"student\.steps: was 3, is 4"):
        folder.open(small_recipe(world, tmp_path / "run", "student.steps=4"), resume=True)
