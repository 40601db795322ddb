"""Write the original EasyAnimate trainer's file, which its ComfyUI nodes read, too.

Keys are `lora_unet__<original path, "." as "_">` + `.lora_down.weight`, `.lora_up.weight`,
`.alpha`, with the original model's module names.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from base_model.files.reproducible import safetensors_bytes
from base_model.loading.key_map import to_original
from reward_tuning.files.atomic_write import EXPORT_AGAIN, atomic_write
from reward_tuning.lora.adapter import LoraWeights

# The double underscore is mandatory: with one, the original reader takes `proj_out` for `proj`.
PREFIX = "lora_unet__"
_DOWN, _UP, _ALPHA = "lora_down.weight", "lora_up.weight", "alpha"


def original_key(path: str) -> str:
    """Return `lora_unet__transformer_blocks_0_attn2_to_q` for `...0.attn1.add_q_proj`."""
    return PREFIX + to_original(path).replace(".", "_")


def write(weights: LoraWeights, path: Path, dtype: torch.dtype) -> None:
    """Write the file, and replace an earlier one of the same name. Alpha stays fp32."""
    tensors: dict[str, Tensor] = {}
    for module, (down, up) in weights.state.items():
        key = original_key(module)
        tensors[f"{key}.{_DOWN}"] = down.to(dtype).contiguous()
        tensors[f"{key}.{_UP}"] = up.to(dtype).contiguous()
        tensors[f"{key}.{_ALPHA}"] = torch.tensor(weights.alpha, dtype=torch.float32)
    atomic_write(path, safetensors_bytes(tensors, _hashes(tensors)), advice=EXPORT_AGAIN)


def _hashes(tensors: dict[str, Tensor]) -> dict[str, str]:
    """Return the two digests by which kohya-style readers index files.

    The new one is the SHA-256 of the data after the header, the old one the first eight digits of
    the SHA-256 of 64 KiB from 1 MiB on, of the file without metadata.
    """
    plain = safetensors.torch.save(tensors)
    data = 8 + int.from_bytes(plain[:8], "little")
    return {
        "sshs_model_hash": hashlib.sha256(memoryview(plain)[data:]).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(plain[0x100000:0x110000]).hexdigest()[:8],
    }
