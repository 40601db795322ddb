"""Write a safetensors file that diffusers' `load_lora_adapter` reads with the right strength.

Keys are `transformer.<diffusers path>.lora_A.weight` and `.lora_B.weight`. diffusers reads alpha
from the header only if it is given the name of a safetensors file, and otherwise takes alpha =
rank, as most readers of these keys do. So alpha / rank is multiplied into the up factors, alpha in
the header is the rank, and the adapter's own alpha is a header entry of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from reward_tuning.files.atomic_write import EXPORT_AGAIN, atomic_write
from reward_tuning.lora.adapter import LoraWeights
from reward_tuning.lora.formats.adapter_files import ORIGINAL_ALPHA
from reward_tuning.lora.metadata import DIFFUSERS, adapter_bytes
from reward_tuning.lora.names import CONFIG_IN_HEADER, DIFFUSERS_PREFIX, tensors_by_name


def write(weights: LoraWeights, path: Path, dtype: torch.dtype, about: Mapping[str, str]) -> None:
    """Write the file, and replace an earlier one of the same name."""
    folded = {path: (down, up * weights.strength) for path, (down, up) in weights.state.items()}
    named = tensors_by_name(folded, DIFFUSERS_PREFIX)
    tensors = {name: tensor.to(dtype) for name, tensor in named.items()}
    config = {
        "r": weights.rank,
        "lora_alpha": weights.rank,
        "target_modules": sorted(weights.state),
    }
    header = json.dumps({DIFFUSERS_PREFIX + k: v for k, v in config.items()}, sort_keys=True)
    content = adapter_bytes(
        tensors,
        weights,
        alpha=float(weights.rank),
        implementation=DIFFUSERS,
        about=about,
        more={
            "format": "pt",
            CONFIG_IN_HEADER: header,
            ORIGINAL_ALPHA: repr(float(weights.alpha)),
        },
    )
    atomic_write(path, content, advice=EXPORT_AGAIN)
