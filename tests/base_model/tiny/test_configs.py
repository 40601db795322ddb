"""The architectures in the code are those of the shipped files."""

import json
from pathlib import Path
from typing import Any

import pytest

from base_model.files.shipped import resolve_checkpoint
from base_model.tiny import configs


@pytest.mark.parametrize(
    ("file", "config"),
    [
        ("transformer/config.json", configs.TRANSFORMER),
        ("vae/config.json", configs.VAE),
        ("scheduler/scheduler_config.json", configs.SCHEDULER),
    ],
)
def test_the_shipped_config(file: str, config: dict[str, Any]) -> None:
    shipped = json.loads((Path(resolve_checkpoint("tiny")) / file).read_text())
    trained = {"scaling_factor"}  # measured on the latents after training
    assert {key: shipped[key] for key in config.keys() - trained} == {
        key: config[key] for key in config.keys() - trained
    }
    assert shipped.get("scaling_factor") != 1.0


def test_the_shipped_text_encoder() -> None:
    folder = Path(resolve_checkpoint("tiny"))
    text = json.loads((folder / "text_encoder" / "config.json").read_text())
    for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
        assert text[key] == configs.TEXT[key]
    assert text["vocab_size"] <= configs.TEXT_VOCABULARY
    tokenizer = json.loads((folder / "tokenizer" / "tokenizer_config.json").read_text())
    assert tokenizer["model_max_length"] == configs.TEXT_LENGTH
