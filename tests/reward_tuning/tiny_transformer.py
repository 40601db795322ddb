"""A tiny EasyAnimate transformer of 7B style: two MMDiT blocks, two single-stream blocks."""

from __future__ import annotations

import torch
from diffusers import EasyAnimateTransformer3DModel
from torch import Tensor, nn

LATENTS = (1, 16, 3, 8, 8)


def tiny_transformer(seed: int = 0, **changes: object) -> EasyAnimateTransformer3DModel:
    """Seeded random weights, without touching the global generator."""
    config = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 16,
        "out_channels": 16,
        "patch_size": 2,
        "num_layers": 4,
        "mmdit_layers": 2,
        "time_embed_dim": 32,
        "text_embed_dim": 48,
        "add_norm_text_encoder": True,
        "norm_eps": 1e-5,
        **changes,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = EasyAnimateTransformer3DModel(**config)
        for p in transformer.parameters():
            if p.dim() == 1:
                torch.nn.init.normal_(p, std=0.2)
    return transformer.eval()


def inputs(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Latents and text states."""
    draw = torch.Generator().manual_seed(11)
    return (
        torch.randn(LATENTS, generator=draw).to(dtype),
        torch.randn(1, 10, 48, generator=draw).to(dtype),
    )


def velocity(transformer: nn.Module, latents: Tensor, text: Tensor, sigma: float = 0.5) -> Tensor:
    """One model call in the transformer's own dtype."""
    dtype = transformer.get_parameter("proj.weight").dtype
    time = torch.full((latents.shape[0],), 1000.0 * sigma, dtype=dtype)
    out = transformer(
        latents.to(dtype), time, encoder_hidden_states=text.to(dtype), return_dict=False
    )
    return out[0]
