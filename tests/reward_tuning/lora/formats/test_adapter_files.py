"""Files and folders with an adapter in them, and what stores its strength."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from reward_tuning.errors import TuningError
from reward_tuning.lora.adapter import (
    adapter_state,
    attach_weights,
)
from reward_tuning.lora.export import import_adapter
from reward_tuning.lora.formats.adapter_files import AdapterFile, find_adapter
from reward_tuning.runs.checkpoints import RunCheckpoint, save_checkpoint
from tests.reward_tuning.lora.test_combining import TWO
from tests.reward_tuning.lora_layouts import (
    assert_same,
    by_formula,
    change,
    dotted,
    flat,
    peft_folder,
    save,
)
from tests.reward_tuning.tiny_transformer import tiny_transformer


@pytest.mark.parametrize(
    "name", ["lora.pt", "lora.bin", "lora.ckpt", "folder/step-100.safetensors"]
)
def test_a_pickle_or_a_folder_with_one_file(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, flat("lora_unet__"))
    source = path.parent if name.startswith("folder") else path
    assert_same(change(source), by_formula(0.5), 1e-5)


def test_a_pickle_with_the_ending_of_the_other_kind_and_a_trainers_dictionary(
    tmp_path: Path,
) -> None:
    torch.save({"state_dict": flat("lora_unet__"), "epoch": 3}, tmp_path / "a.safetensors")
    assert_same(change(tmp_path / "a.safetensors"), by_formula(0.5), 1e-5)
    save(tmp_path / "b.safetensors", flat("lora_unet__")).rename(tmp_path / "b.pt")
    assert_same(change(tmp_path / "b.pt"), by_formula(0.5), 1e-5)


def test_a_peft_file_without_its_config_has_no_strength(tmp_path: Path) -> None:
    path = save(tmp_path / "adapter_model.safetensors", dotted("base_model.model."))
    with pytest.raises(TuningError, match=r"alpha is in adapter_config\.json, which is missing"):
        change(path)


def test_pickles_that_hold_more_than_tensors_are_not_run(tmp_path: Path) -> None:
    class Loud:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"a": Loud()}, tmp_path / "lora.pt")
    with pytest.raises(TuningError, match="weights_only") as told:
        change(tmp_path / "lora.pt")
    assert not (tmp_path / "ran").exists()
    assert len(str(told.value)) < 500
    torch.save({"a": 3, **flat("lora_unet__")}, tmp_path / "lora.pt")
    with pytest.raises(TuningError, match="'a' is a int"):
        change(tmp_path / "lora.pt")
    (tmp_path / "lora.pt").write_bytes((tmp_path / "lora.pt").read_bytes()[:2000])
    with pytest.raises(TuningError, match="truncated"):
        change(tmp_path / "lora.pt")


def test_folders_that_say_too_little_are_told(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", flat("lora_unet__"))
    save(tmp_path / "b.safetensors", flat("lora_unet__"))
    with pytest.raises(TuningError, match=r"2 candidate files \(a\.safetensors, b"):
        change(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(TuningError, match=r"neither adapter_model\.safetensors nor"):
        change(tmp_path)


@pytest.fixture
def step(tmp_path: Path) -> Path:
    """A checkpoint whose adapter has alpha 2 at rank 4."""
    transformer = tiny_transformer()
    attach_weights(transformer, TWO[0])
    adapter = adapter_state(transformer)
    recipe = {"lora": {"rank": 4, "alpha": 2.0}}
    checkpoint = RunCheckpoint(3, 12, 0, 0, adapter, {}, {}, recipe, {}, ema=adapter)
    return save_checkpoint(tmp_path / "run" / "checkpoints", checkpoint, keep=1)


def test_a_checkpoints_adapter_has_the_runs_strength(step: Path, tmp_path: Path) -> None:
    model = tiny_transformer()
    copy = shutil.copy(step / "adapter.safetensors", tmp_path / "mine.safetensors")
    for path in (step / "adapter.safetensors", step / "ema.safetensors", Path(copy)):
        assert (import_adapter(path, model).rank, import_adapter(path, model).alpha) == (4, 2.0)
    with pytest.raises(TuningError, match=r"two adapters; name its ema\.safetensors"):
        import_adapter(step, model)
    (step / "ema.safetensors").unlink()
    assert import_adapter(step, model).alpha == 2.0


def test_a_checkpoint_without_a_header_takes_alpha_from_its_state(step: Path) -> None:
    """As of runs of former versions."""
    path = step / "adapter.safetensors"
    save_file(load_file(path), path)
    assert import_adapter(path, tiny_transformer()).alpha == 2.0
    state = step / "state.json"
    content = json.loads(state.read_text(encoding="utf-8"))
    state.write_text(json.dumps({**content, "recipe": {"lora": None}}), encoding="utf-8")
    with pytest.raises(TuningError, match=r"not give the run's lora\.rank and lora\.alpha"):
        import_adapter(path, tiny_transformer())
    state.unlink()
    with pytest.raises(TuningError, match=r"alpha is in state\.json, which is missing"):
        import_adapter(path, tiny_transformer())


def test_a_named_adapter_of_peft_is_found_in_its_own_folder(tmp_path: Path) -> None:
    folder = peft_folder(tmp_path / "mine")
    found = find_adapter(tmp_path)
    assert found == AdapterFile(
        folder / "adapter_model.safetensors", folder / "adapter_config.json"
    )
    peft_folder(tmp_path / "other")
    with pytest.raises(TuningError, match=r"contains neither adapter_config\.json"):
        find_adapter(tmp_path)
