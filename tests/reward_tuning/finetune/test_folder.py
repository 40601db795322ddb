"""The run folder of a fine-tuning: its own files, and its own recipe."""

from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.finetune.folder import FinetuneFolder
from tests.reward_tuning.finetune.clip_folder import small_recipe, write_world_of_clips


@pytest.mark.parametrize("name", ["finetune.json", "clips.json", "base.json", "generator", "lora"])
def test_a_fine_tuning_leaves_other_files_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(TuningError, match=f"holds {name} of something else"):
        FinetuneFolder(tmp_path).refuse_existing_run()
    assert (tmp_path / name).read_text() == "mine"


def test_it_reads_its_own_recipe_and_is_finished_with_its_own_file(tmp_path: Path) -> None:
    world = write_world_of_clips(tmp_path / "world")
    recipe = small_recipe(world, tmp_path / "run")
    folder = FinetuneFolder(recipe.output)
    assert folder.open(recipe, resume=False) is None
    folder.begin(recipe, {})
    assert folder.open(recipe, resume=True) is None
    (tmp_path / "run/finetune.json").write_text('{"steps": 6}')
    assert folder.open(recipe, resume=True) == {"steps": 6}
    with pytest.raises(TuningError, match=r"data\.stride: was 1, is 2"):
        folder.open(small_recipe(world, tmp_path / "run", "data.stride=2"), resume=True)
