"""Write a peft folder (adapter_config.json, adapter_model.safetensors), as PeftModel reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig

from reward_tuning.lora.adapter import LoraWeights
from reward_tuning.lora.formats.adapter_files import CONFIG, PEFT_FILES
from reward_tuning.lora.formats.tensor_file import write_folder_atomically
from reward_tuning.lora.metadata import DIFFUSERS, adapter_bytes
from reward_tuning.lora.names import PEFT_PREFIX, tensors_by_name


def write(weights: LoraWeights, folder: Path, dtype: torch.dtype, about: Mapping[str, str]) -> None:
    """Write the folder, and replace an earlier export of the same name."""
    config = LoraConfig(
        r=weights.rank,
        lora_alpha=_number(weights.alpha),
        target_modules=sorted(weights.state),
        lora_dropout=0.0,
        bias="none",
        inference_mode=True,
    ).to_dict()
    named = tensors_by_name(weights.state, PEFT_PREFIX)
    tensors = {name: tensor.to(dtype) for name, tensor in named.items()}
    text = json.dumps(config, indent=2, sort_keys=True, default=_plain_value)
    content = adapter_bytes(
        tensors,
        weights,
        alpha=weights.alpha,
        implementation=DIFFUSERS,
        about=about,
        more={"format": "pt"},
    )
    files = {PEFT_FILES[0]: content, CONFIG: (text + "\n").encode()}
    write_folder_atomically(folder, files, marker=CONFIG)


def _number(alpha: float) -> Any:
    """Return 64 for 64.0: peft's own files have integers."""
    return int(alpha) if alpha == int(alpha) else alpha


def _plain_value(value: object) -> object:
    """Convert sets and enumerations of a peft config for JSON."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(getattr(value, "value", value))
