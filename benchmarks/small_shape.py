"""A 7B and its judge in small, for checks on a CPU."""

from __future__ import annotations

from base_model.loading.published_configs import published_configs
from reward_tuning.estimate.shapes import Shape

_CONFIGS = published_configs("EasyAnimateV5.1-7b-zh-InP")
assert _CONFIGS is not None

SMALL = Shape(
    "small",
    _CONFIGS.transformer
    | {
        "num_attention_heads": 2,
        "attention_head_dim": 32,
        "num_layers": 3,
        "mmdit_layers": 2,
        "time_embed_dim": 32,
        "text_embed_dim": 48,
    },
    _CONFIGS.vae
    | {"block_out_channels": [8, 8, 16, 16], "layers_per_block": 1, "norm_num_groups": 4},
    {"hidden_size": 48, "max_position_embeddings": 16},
    {
        "embed_dim": 32,
        "vision_cfg": {
            "image_size": 32,
            "layers": 2,
            "width": 32,
            "patch_size": 8,
            "head_width": 16,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 32,
            "heads": 2,
            "layers": 2,
        },
    },
)
SMALL_CLIP = (
    "sampling.frames=1",
    "sampling.height=32",
    "sampling.width=32",
    "rewards.0.frames=1",
    "evaluation.held_out_rewards.0.frames=1",
)
"""Overrides of a published model's recipe that fit it."""
