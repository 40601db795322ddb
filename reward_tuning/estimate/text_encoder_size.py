"""Memory of the text encoder, from its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PROMPTS_AT_ONCE = 8
"""Prompts of a forward pass (`PromptEncoder.batch_size`)."""
_PICTURE_DEFAULTS = {
    "patch_size": 14,
    "temporal_patch_size": 2,
    "in_chans": 3,
    "spatial_merge_size": 2,
    "mlp_ratio": 4,
}
"""Of transformers' `Qwen2VLVisionConfig`, for keys that a config leaves out."""


def text_encoder_weights(config: Mapping[str, Any]) -> int:
    """Return how many numbers a Qwen2-VL holds, its picture tower and its language head included.

    Args:
        config: Flat, as published, or nested, as newer versions of transformers write it.
    """
    text: Mapping[str, Any] = config | config.get("text_config", {})
    h, inner, heads = text["hidden_size"], text["intermediate_size"], text["num_attention_heads"]
    keys = text["num_key_value_heads"] * (h // heads)
    attention = 2 * h * h + 2 * h * keys + h + 2 * keys
    layer = attention + 3 * h * inner + 2 * h
    tables = 1 if config.get("tie_word_embeddings") else 2
    language = text["num_hidden_layers"] * layer + h + tables * text["vocab_size"] * h
    return language + _picture_weights(config["vision_config"], h)


def text_encoder_activations(config: Mapping[str, Any], tokens: int) -> int:
    """Return how many numbers a forward pass holds: the states of all layers, and one layer's own.

    Args:
        config: As in `text_encoder_weights`.
        tokens: Tokens of a prompt.
    """
    text: Mapping[str, Any] = config | config.get("text_config", {})
    states, layer = text["num_hidden_layers"] + 1, 4
    width = (states + layer) * text["hidden_size"] + 2 * text["intermediate_size"]
    return PROMPTS_AT_ONCE * tokens * width


def _picture_weights(config: Mapping[str, Any], width: int) -> int:
    config = _PICTURE_DEFAULTS | dict(config)
    e = config["embed_dim"]
    patch = config["patch_size"] ** 2 * config["temporal_patch_size"] * config["in_chans"]
    inner = int(config["mlp_ratio"] * e)
    attention, mlp, norms = 4 * e * e + 4 * e, 2 * e * inner + inner + e, 4 * e
    merged = e * config["spatial_merge_size"] ** 2
    merger = 2 * e + merged * merged + merged + merged * width + width
    return patch * e + config["depth"] * (attention + mlp + norms) + merger
