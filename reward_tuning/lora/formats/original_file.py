"""Write the original EasyAnimate trainer's file, which its ComfyUI nodes read, too.

Keys are `lora_unet__<original path, "." as "_">` + `.lora_down.weight`, `.lora_up.weight`,
`.alpha`, with the original model's module names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from base_model.loading.key_map import to_original
from reward_tuning.files.atomic_write import EXPORT_AGAIN, atomic_write
from reward_tuning.lora.adapter import LoraWeights
from reward_tuning.lora.metadata import ORIGINAL, adapter_bytes

# The double underscore is mandatory: with one, the original reader takes `proj_out` for `proj`.
PREFIX = "lora_unet__"
_DOWN, _UP, _ALPHA = "lora_down.weight", "lora_up.weight", "alpha"


def original_key(path: str) -> str:
    """Return `lora_unet__transformer_blocks_0_attn2_to_q` for `...0.attn1.add_q_proj`."""
    return PREFIX + to_original(path).replace(".", "_")


def write(weights: LoraWeights, path: Path, dtype: torch.dtype, about: Mapping[str, str]) -> None:
    """Write the file, and replace an earlier one of the same name. Alpha stays fp32."""
    tensors: dict[str, Tensor] = {}
    for module, (down, up) in weights.state.items():
        key = original_key(module)
        tensors[f"{key}.{_DOWN}"] = down.to(dtype).contiguous()
        tensors[f"{key}.{_UP}"] = up.to(dtype).contiguous()
        tensors[f"{key}.{_ALPHA}"] = torch.tensor(weights.alpha, dtype=torch.float32)
    content = adapter_bytes(
        tensors, weights, alpha=weights.alpha, implementation=ORIGINAL, about=about, more={}
    )
    atomic_write(path, content, advice=EXPORT_AGAIN)
