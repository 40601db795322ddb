"""Which adapter and which generator a path stands for."""

from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.evidence.adapters import adapter_path, checkpoint_of
from tests.reward_tuning.recipes_for_tests import write_recipe


def test_the_adapter_of_a_run_is_its_lora_folder(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    with pytest.raises(TuningError, match=f"resume it with `reward-tuning resume {tmp_path}`"):
        adapter_path(tmp_path)
    (tmp_path / "lora").mkdir()
    assert adapter_path(tmp_path) == tmp_path / "lora"


def test_any_other_path_is_the_adapter_itself(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    with pytest.raises(TuningError, match=r"no LoRA at .*; give a run folder, a LoRA file"):
        adapter_path(file)
    file.touch()
    assert adapter_path(file) == file


@pytest.mark.parametrize("place", ["", "lora", "lora/original.safetensors", "checkpoints/a/b"])
def test_the_generator_is_that_of_the_run_around_the_adapter(tmp_path: Path, place: str) -> None:
    write_recipe(tmp_path, generator__checkpoint="owner/name")
    assert checkpoint_of(tmp_path / place) == "owner/name"


def test_an_adapter_outside_a_run_names_no_generator(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    assert checkpoint_of(tmp_path / "a/b/c/d/e.safetensors") is None
