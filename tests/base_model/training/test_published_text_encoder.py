"""A small Qwen2-VL in the published files opens again, with the same states."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from base_model.files.shipped import resolve_checkpoint
from base_model.loading.text_encoder_files import load_text_encoder, newer_than_easyanimate
from base_model.networks.prompt_encoder import PromptEncoder
from base_model.tiny import configs
from base_model.training.published_text_encoder import (
    published_name,
    write_text_encoder,
    write_tokenizer,
)
from tests.published_layout import text_encoder_files


@pytest.fixture
def encoder() -> PromptEncoder:
    return load_text_encoder(Path(resolve_checkpoint("tiny")))


def test_written_files_have_the_published_names_and_states(
    encoder: PromptEncoder, tmp_path: Path
) -> None:
    write_text_encoder(
        tmp_path / "text_encoder", encoder.text_encoder, torch.float32, {"command": "a test"}
    )
    write_tokenizer(tmp_path / "tokenizer", encoder.tokenizer)
    with safe_open(tmp_path / "text_encoder" / "model.safetensors", "pt") as file:
        names = set(file.keys())
        assert file.metadata() == {"command": "a test", "format": "pt"}
    assert {name.split(".")[0] for name in names} <= {"model", "visual", "lm_head"}
    assert "model.layers.0.mlp.up_proj.weight" in names
    assert newer_than_easyanimate(tmp_path) == ()
    again = load_text_encoder(tmp_path)
    assert isinstance(again, PromptEncoder)
    assert torch.equal(again(["a red circle", ""]), encoder(["a red circle", ""]))


def test_the_config_has_the_published_keys(encoder: PromptEncoder, tmp_path: Path) -> None:
    write_text_encoder(tmp_path, encoder.text_encoder, torch.bfloat16, {})
    config = json.loads((tmp_path / "config.json").read_text())
    files = text_encoder_files()
    published = json.loads(
        next(t for n, t in files.items() if n.endswith("text_encoder/config.json"))
    )
    assert config["torch_dtype"] == "bfloat16"
    assert (
        config["rope_scaling"]["mrope_section"] == configs.TEXT["rope_parameters"]["mrope_section"]
    )
    assert set(config) - set(published) <= {"pad_token_id"}
    assert "text_config" not in config


def test_names_outside_the_two_towers_stay() -> None:
    assert published_name("model.language_model.norm.weight") == "model.norm.weight"
    assert (
        published_name("model.visual.patch_embed.proj.weight") == "visual.patch_embed.proj.weight"
    )
    assert published_name("lm_head.weight") == "lm_head.weight"
