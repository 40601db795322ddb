"""A LoRA in every format, or a whole checkpoint that shares the base's other files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from base_model.generator import load_generator
from reward_tuning.errors import TuningError
from reward_tuning.finetune.exporting import export_trained, write_checkpoint
from reward_tuning.finetune.folder import FinetuneFolder
from reward_tuning.finetune.trained import trained_part
from reward_tuning.lora.formats.tensor_file import read_header
from reward_tuning.progress import silent
from tests.reward_tuning.finetune.clip_folder import small_recipe, write_world_of_clips
from tests.reward_tuning.full_disk import largest_file


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world_of_clips(tmp_path_factory.mktemp("world"))


def test_an_adapter_is_written_in_every_format(world: Path, tmp_path: Path) -> None:
    recipe = small_recipe(world, tmp_path / "run")
    transformer = load_generator(world / "generator", text_encoder=False).transformer
    trained = trained_part(transformer, recipe.lora, seed=1, progress=silent)
    folder = FinetuneFolder(recipe.output)
    export_trained(recipe, transformer, trained.state(), folder, {})
    names = {path.name for path in folder.lora.iterdir()}
    assert {
        "adapter_model.safetensors",
        "original.safetensors",
        "pytorch_lora_weights.safetensors",
    } <= names
    assert not folder.generator.exists()
    told = read_header(folder.lora / "original.safetensors")
    assert told["modelspec.title"] == "generator fine-tuned on clips"
    assert json.loads(told["reward_tuning.recipe"])["train"]["steps"] == recipe.train.steps
    assert "reward_tuning.judges" not in told
    assert str(tmp_path) not in json.dumps(told)
    assert str(world) not in json.dumps(told)


def test_a_whole_checkpoint_loads_back_and_shares_what_was_not_trained(
    world: Path, tmp_path: Path
) -> None:
    recipe = small_recipe(world, tmp_path / "run", "lora=null")
    transformer = load_generator(world / "generator", text_encoder=False).transformer
    with torch.no_grad():
        for p in transformer.parameters():
            p.add_(0.5)
    weights = {name: p.detach() for name, p in transformer.named_parameters()}
    folder = FinetuneFolder(recipe.output)
    for _ in range(2):  # the second time over the first
        export_trained(recipe, transformer, weights, folder, {})
    found = load_generator(folder.generator)
    for name, p in found.transformer.named_parameters():
        assert torch.equal(p, weights[name])
    for base in (world / "generator" / "vae").iterdir():
        own = folder.generator / "vae" / base.name
        assert own.read_bytes() == base.read_bytes()
        assert own.stat().st_ino == base.stat().st_ino  # the same blocks of the disk
    assert [path.name for path in folder.root.iterdir()] == ["generator"]


def test_a_full_disk_leaves_the_earlier_checkpoint(world: Path, tmp_path: Path) -> None:
    recipe = small_recipe(world, tmp_path / "run", "lora=null")
    transformer = load_generator(world / "generator", text_encoder=False).transformer
    weights = {name: p.detach() for name, p in transformer.named_parameters()}
    folder = FinetuneFolder(recipe.output)
    folder.generator.mkdir(parents=True)
    (folder.generator / "earlier").write_text("")
    with largest_file(1000), pytest.raises(TuningError, match="generator could not be written"):
        export_trained(recipe, transformer, weights, folder, {})
    assert [path.name for path in folder.root.iterdir()] == ["generator"]
    assert [path.name for path in folder.generator.iterdir()] == ["earlier"]


def test_parts_are_copied_where_they_cannot_be_linked(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr("os.link", refuse)
    transformer = load_generator(world / "generator", text_encoder=False).transformer
    weights = {name: p.detach() for name, p in transformer.named_parameters()}
    write_checkpoint(tmp_path / "out", transformer, weights, world / "generator")
    for base in (world / "generator" / "vae").iterdir():
        own = tmp_path / "out" / "vae" / base.name
        assert own.read_bytes() == base.read_bytes()
        assert own.stat().st_ino != base.stat().st_ino
