"""One safetensors file as diffusers' `load_lora_adapter` reads it, with alpha in its metadata.

Keys are `transformer.<diffusers path>.lora_A.weight` and `.lora_B.weight`. Without metadata
diffusers takes alpha = rank, which would double a rank 128, alpha 64 adapter.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from base_model.training.weight_file import safetensors_bytes
from reward_tuning.errors import TuningError
from reward_tuning.exports.fitting import fit, pair_up, plain_config
from reward_tuning.exports.tensor_file import read_tensors
from reward_tuning.lora import LoraWeights
from reward_tuning.whole_file import EXPORT_AGAIN, write_whole

PREFIX = "transformer."
METADATA = "lora_adapter_metadata"  # diffusers' own name for it


def write(weights: LoraWeights, path: Path, dtype: torch.dtype) -> None:
    """Write the file; a former one of the same name is replaced."""
    tensors: dict[str, Tensor] = {}
    for module, (down, up) in weights.state.items():
        tensors[f"{PREFIX}{module}.lora_A.weight"] = down.to(dtype)
        tensors[f"{PREFIX}{module}.lora_B.weight"] = up.to(dtype)
    config = {
        "r": weights.rank,
        "lora_alpha": weights.alpha,
        "target_modules": sorted(weights.state),
    }
    text = json.dumps({PREFIX + k: v for k, v in config.items()}, sort_keys=True)
    write_whole(
        path, safetensors_bytes(tensors, {"format": "pt", METADATA: text}), advice=EXPORT_AGAIN
    )


def read(path: Path, transformer: nn.Module) -> LoraWeights:
    """Read the file, checked against the transformer.

    A file without adapter metadata has alpha = rank, as in diffusers.

    Raises:
        TuningError: a damaged or foreign file, or an adapter for another model.
    """
    tensors, metadata = read_tensors(path)
    where = str(path)
    pairs = pair_up({k.removeprefix(PREFIX): t for k, t in tensors.items()}, where)
    if METADATA in metadata:
        try:
            config = json.loads(metadata[METADATA])
            config = {k.removeprefix(PREFIX): v for k, v in config.items()}
        except (ValueError, AttributeError) as error:
            raise TuningError(f"{where}: {METADATA} in its header is no JSON object") from error
        rank, alpha = plain_config(config, where)
    else:
        rank = next((down.shape[0] for down, _ in pairs.values()), 0)
        alpha = float(rank)
    return fit(pairs, rank, alpha, transformer, where)
