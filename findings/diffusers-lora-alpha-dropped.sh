#!/usr/bin/env bash
# diffusers 0.42.1, peft 0.21.2, torch 2.15.0 (CPU), seen 2026-11-29: a LoRA that diffusers saved comes back at
# another strength when it is loaded by its path.
#
# save_lora_adapter writes alpha into the header of the safetensors file (lora_adapter_metadata).
# load_lora_adapter(FILE) reads the same file without its header, and takes alpha = rank: a strength of
# 3 / 8 becomes 1. With use_safetensors=True, or a weight_name that ends in .safetensors, the header is
# read. Nothing is said in either case.
#
# Output seen:
#   saved                 0.375
#   by path               1.0
#   use_safetensors=True  0.375
#   weight_name           0.375
#
# Exits with 0 while that holds, with 1 when it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet diffusers==0.42.1 peft==0.21.2 torch==2.15.0 transformers==5.23.0
cat > "$folder/strength.py" <<'PY'
import sys
from pathlib import Path

import torch
from diffusers import SD3Transformer2DModel
from peft import LoraConfig
from peft.tuners.lora import LoraLayer

folder = Path(sys.argv[1])


def model():
    torch.manual_seed(0)
    return SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=1,
        attention_head_dim=8, num_attention_heads=2, joint_attention_dim=16,
        caption_projection_dim=16, pooled_projection_dim=16, pos_embed_max_size=8,
    )


def strength(one):
    layer = next(m for m in one.modules() if isinstance(m, LoraLayer))
    return next(iter(layer.scaling.values()))


saved = model()
saved.add_adapter(LoraConfig(r=8, lora_alpha=3, target_modules=["to_q"]))
saved.save_lora_adapter(folder)
file = folder / "pytorch_lora_weights.safetensors"
found = [strength(saved)]
for place, options in (
    (file, {}),
    (file, {"use_safetensors": True}),
    (folder, {"weight_name": file.name}),
):
    loaded = model()
    loaded.load_lora_adapter(str(place), prefix=None, **options)
    found.append(strength(loaded))
for name, value in zip(("saved", "by path", "use_safetensors=True", "weight_name"), found):
    print(f"{name:20}  {value}")
sys.exit(found != [0.375, 1.0, 0.375, 0.375])
PY
"$folder/venv/bin/python" "$folder/strength.py" "$folder"
