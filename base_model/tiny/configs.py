"""Architectures of the embedded generator: the published classes at the size of a laptop."""

from __future__ import annotations

from typing import Any

from base_model.core.family import FAMILY
from base_model.tiny.scenes import FRAMES, SIDE

VAE: dict[str, Any] = {
    "in_channels": 3,
    "latent_channels": 16,
    "out_channels": 3,
    "block_out_channels": [16, 32, 64, 64],
    "down_block_types": ["SpatialDownBlock3D"] + ["SpatialTemporalDownBlock3D"] * 3,
    "up_block_types": ["SpatialUpBlock3D"] + ["SpatialTemporalUpBlock3D"] * 3,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "scaling_factor": 1.0,  # replaced by 1 / std of the trained latents
    "spatial_group_norm": True,
}

TEXT_WIDTH = 128
TEXT_VOCABULARY = 640
TEXT_LENGTH = 36

TEXT: dict[str, Any] = {
    "hidden_size": TEXT_WIDTH,
    "intermediate_size": 384,
    "num_hidden_layers": 2,  # with more layers the states of the words of one class become alike
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [4, 6, 6],
    },
}

VISION: dict[str, Any] = {
    "depth": 1,
    "embed_dim": 32,
    "num_heads": 2,
    "mlp_ratio": 2,
    "hidden_size": TEXT_WIDTH,
    "patch_size": 8,
}

TRANSFORMER: dict[str, Any] = {
    "num_attention_heads": 3,
    "attention_head_dim": 64,
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "sample_width": 90,
    "sample_height": 60,
    "time_embed_dim": 64,
    "num_layers": 6,
    "mmdit_layers": 2,
    "text_embed_dim": TEXT_WIDTH,
    "add_norm_text_encoder": True,
    "norm_eps": 1e-5,
}

SCHEDULER: dict[str, Any] = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "num_train_timesteps": FAMILY.timesteps,
    "shift": 3.0,
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "_clip_size": {"frames": FRAMES, "height": SIDE, "width": SIDE},
}
