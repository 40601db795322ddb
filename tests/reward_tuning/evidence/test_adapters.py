"""Which adapter and which generator a path stands for."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from reward_tuning.errors import TuningError
from reward_tuning.evidence.adapters import adapter_path, base_in_header, checkpoint_of
from reward_tuning.evidence.mixing import Mix, about_mix
from tests.reward_tuning.recipes_for_tests import write_recipe


def test_the_adapter_of_a_run_is_its_lora_folder(tmp_path: Path) -> None:
    write_recipe(tmp_path)
    with pytest.raises(TuningError, match=f"resume it with `reward-tuning resume {tmp_path}`"):
        adapter_path(tmp_path)
    (tmp_path / "lora").mkdir()
    assert adapter_path(tmp_path) == tmp_path / "lora"


def test_any_other_path_is_the_adapter_itself(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    with pytest.raises(
        TuningError, match=r"no LoRA at .*; give .* or a shipped one \(tiny-4-steps"
    ):
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


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ('{"checkpoint": "tiny"}', "tiny"),
        ('{"checkpoint": "owner/name"}', "owner/name"),
        ('{"checkpoint": "my-folder"}', None),
        ('{"checkpoint": "../name"}', None),
        ('{"checkpoint": "tiny with another vae"}', None),
        ('["tiny"]', None),
        ("{", None),
    ],
)
def test_a_header_names_a_generator_that_is_shipped_or_on_a_hub(
    tmp_path: Path, base: str, expected: str | None
) -> None:
    file = tmp_path / "a.safetensors"
    save_file({"x": torch.zeros(1)}, file, {"reward_tuning.base": base})
    assert base_in_header(file) == expected
    assert base_in_header(tmp_path / "none.safetensors") is None


def test_a_mix_of_a_folder_names_no_generator(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    mix = Mix((1.0, 2.0))
    assert json.loads(about_mix(mix, "tiny")["reward_tuning.base"]) == {"checkpoint": "tiny"}
    assert about_mix(mix, str(tmp_path / "tiny")) == {"reward_tuning.mix": "1, 2"}
