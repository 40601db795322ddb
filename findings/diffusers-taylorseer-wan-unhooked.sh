#!/usr/bin/env bash
# diffusers 0.42.1, torch 2.15.0 (CPU), seen 2026-11-30: TaylorSeer's cache, enabled on a video transformer,
# computes every step in full, and nothing says so.
#
# WanTransformer3DModel takes enable_cache(TaylorSeerCacheConfig(...)) and is_cache_enabled is True afterwards. The
# default patterns must match a module's whole name and end in "attn"; Wan's self-attention is called attn1, so that
# no module is hooked: there is no warning, and no saving. FluxTransformer2DModel, whose attention is called attn, is hooked.
# With cache_identifiers=[".*attn1"] Wan is, too. The transformers of CogVideoX, LTX, Mochi and SkyReels also call
# theirs attn1.
#
# Output seen (10 steps, one attention in each of 2 blocks):
#   Flux, default          enabled True   attention runs 12 of 20 times
#   Wan, default           enabled True   attention runs 20 of 20 times
#   Wan, named             enabled True   attention runs 12 of 20 times
#
# Exits with 0 while that holds, with 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet diffusers==0.42.1 torch==2.15.0 transformers==5.23.0
cat > "$folder/runs.py" <<'PY'
import sys

import torch
from diffusers import FluxTransformer2DModel, TaylorSeerCacheConfig, WanTransformer3DModel

STEPS, BLOCKS = 10, 2


def flux():
    model = FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
    )
    return model, {
        "hidden_states": torch.randn(1, 16, 4),
        "encoder_hidden_states": torch.randn(1, 6, 32),
        "pooled_projections": torch.randn(1, 32),
        "timestep": torch.tensor([0.5]),
        "img_ids": torch.zeros(16, 3),
        "txt_ids": torch.zeros(6, 3),
    }


def wan():
    model = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16,
        freq_dim=16, ffn_dim=32, num_layers=BLOCKS, rope_max_seq_len=32,
    )
    return model, {
        "hidden_states": torch.randn(1, 4, 2, 8, 8),
        "timestep": torch.tensor([500]),
        "encoder_hidden_states": torch.randn(1, 6, 16),
    }


class Counting:
    calls = 0

    def __init__(self, processor):
        self.processor = processor

    def __call__(self, *args, **options):
        Counting.calls += 1
        return self.processor(*args, **options)


def runs(made, **named):
    torch.manual_seed(0)
    model, inputs = made()
    for name, module in model.named_modules():
        if name.endswith((".attn", ".attn1")):
            module.processor = Counting(module.processor)
    Counting.calls = 0
    model.enable_cache(
        TaylorSeerCacheConfig(cache_interval=2, disable_cache_before_step=2, **named)
    )
    with torch.no_grad(), model.cache_context("cond"):
        for _ in range(STEPS):
            model(**inputs)
    return model.is_cache_enabled, Counting.calls


found = {
    "Flux, default": runs(flux),
    "Wan, default": runs(wan),
    "Wan, named": runs(wan, cache_identifiers=[".*attn1"]),
}
for name, (enabled, calls) in found.items():
    print(f"{name:22} enabled {enabled}   attention runs {calls} of {STEPS * BLOCKS} times")
sys.exit(list(found.values()) != [(True, 12), (True, 20), (True, 12)])
PY
"$folder/venv/bin/python" "$folder/runs.py"
