"""The text encoder's size against its files and the published number of weights."""

from __future__ import annotations

import math

from base_model.files.shipped import resolve_checkpoint
from base_model.files.weight_files import read_json
from base_model.loading.published_configs import published_configs
from reward_tuning.estimate.text_encoder_size import (
    text_encoder_activations,
    text_encoder_weights,
)
from reward_tuning.files.safetensors_header import safetensors_shapes
from tests.published_layout import text_encoder_files, text_encoder_golden

PUBLISHED = 8_291_375_616
"""As the hub states for Qwen2-VL-7B-Instruct."""


def test_the_embedded_encoder_by_its_file() -> None:
    folder = resolve_checkpoint("tiny") / "text_encoder"
    shapes = safetensors_shapes(folder / "model.safetensors")
    assert text_encoder_weights(read_json(folder / "config.json")) == sum(
        map(math.prod, shapes.values())
    )


def test_a_flat_config_of_the_published_kind_by_its_tensors() -> None:
    import json

    config = json.loads(text_encoder_files()["text_encoder/config.json"])
    weights = text_encoder_golden().weights
    assert text_encoder_weights(config) == sum(tensor.numel() for tensor in weights.values())


def test_the_published_encoder() -> None:
    configs = published_configs("alibaba-pai/EasyAnimateV5.1-12b-zh")
    assert configs is not None
    assert text_encoder_weights(configs.text_encoder) == PUBLISHED
    # eight prompts of 256 tokens: 29 states, 4 more and twice the inner width, in numbers
    expected = 8 * 256 * (33 * 3584 + 2 * 18944)
    assert text_encoder_activations(configs.text_encoder, 256) == expected
