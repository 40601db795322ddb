"""Architectures of the embedded generator: the published classes at a laptop's size."""

from __future__ import annotations

from typing import Any

VAE: dict[str, Any] = {
    "in_channels": 3,
    "latent_channels": 16,
    "out_channels": 3,
    "block_out_channels": [24, 48, 64, 64],
    "down_block_types": ["SpatialDownBlock3D"] + ["SpatialTemporalDownBlock3D"] * 3,
    "up_block_types": ["SpatialUpBlock3D"] + ["SpatialTemporalUpBlock3D"] * 3,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "scaling_factor": 1.0,  # replaced by 1 / std of the trained latents
    "spatial_group_norm": True,
}
