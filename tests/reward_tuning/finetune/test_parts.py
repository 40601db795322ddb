"""Everything that a fine-tuning works with, loaded from its recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from base_model.generator import load_generator
from reward_tuning.errors import TuningError
from reward_tuning.files.hashes import file_sha256
from reward_tuning.finetune.parts import FinetuneParts, load_finetune_parts
from reward_tuning.lora.adapter import adapter_state
from reward_tuning.lora.export import export_every_format
from reward_tuning.progress import silent
from reward_tuning.schema.sections import LoraSection
from tests.reward_tuning.finetune.clip_folder import small_recipe, write_world_of_clips

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world_of_clips(tmp_path_factory.mktemp("world"))


def load(world: Path, output: Path, *overrides: str) -> FinetuneParts:
    return load_finetune_parts(small_recipe(world, output, *overrides), CPU, silent)


def test_training_drops_conditions_and_measuring_does_not(world: Path, tmp_path: Path) -> None:
    parts = load(world, tmp_path / "run", "dropout.text=0.5")
    assert parts.held_out_encoder is not None and parts.held_out is not None
    assert parts.encoder.dropout.text == 0.5
    measured = parts.held_out_encoder.dropout
    assert (measured.text, measured.control, measured.reference, measured.zeroed) == (0, 0, 0, 1)
    assert (len(parts.encoder.reader.clips), len(parts.held_out_encoder.reader.clips)) == (4, 1)
    texts = {clip.row.text for clip in parts.survey.clips}
    assert set(parts.encoder.states) == {*texts, ""}
    assert set(parts.fingerprints) == {"generator", "clips"}
    assert parts.encoder.seed != parts.held_out_encoder.seed


def test_nothing_held_out(world: Path, tmp_path: Path) -> None:
    parts = load(world, tmp_path / "run", "data.held_out=0")
    assert (parts.held_out, parts.held_out_encoder) == (None, None)
    assert len(parts.encoder.reader.clips) == 5


def test_fresh_weights_and_new_channels_of_a_whole_training(world: Path, tmp_path: Path) -> None:
    settings = ("lora=null", "generator.fresh=true", "generator.channels=33")
    transformer = load(world, tmp_path / "run", *settings).generator.transformer
    base = load_generator(world / "generator", text_encoder=False).transformer
    assert transformer.config.in_channels == 33
    assert not torch.equal(transformer.proj_out.weight, base.proj_out.weight)
    assert transformer.proj.weight[:, 16:].abs().max() == 0
    assert transformer.proj.weight[:, :16].abs().max() > 0
    assert all(p.requires_grad for p in transformer.parameters())


def test_the_lora_to_start_from_is_loaded_and_hashed(world: Path, tmp_path: Path) -> None:
    section = LoraSection(rank=2, alpha=2.0, targets="attention")
    start = load(world, tmp_path / "run").trained.state()
    draw = torch.Generator().manual_seed(1)
    state = {name: torch.randn(t.shape, generator=draw) for name, t in start.items()}
    export_every_format(section, tmp_path / "lora", state)
    parts = load(world, tmp_path / "run", f"lora.init={tmp_path / 'lora'}")
    own = adapter_state(parts.generator.transformer)
    assert all(torch.equal(own[name], state[name]) for name in state)
    file = tmp_path / "lora" / "adapter_model.safetensors"
    assert parts.fingerprints["lora.init"] == "sha256:" + file_sha256(file)
    assert load_file(file)


def test_what_is_wrong_is_refused_together(world: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TuningError) as refused:
        load(world, tmp_path / "run", "data.held_out=5", f"lora.init={tmp_path / 'empty'}")
    lora, held_out = str(refused.value).splitlines()
    assert lora.startswith("lora.init: ")
    assert held_out.startswith("data.held_out: got 5")
