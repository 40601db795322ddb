"""The `lora/` folder of a run: the adapter in each of the formats."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from reward_tuning.lora.adapter import LoraWeights
from reward_tuning.lora.export import DIFFUSERS_FILE, export_adapter
from reward_tuning.schema.sections import LoraSection

ORIGINAL_FILE = "original.safetensors"


def export_lora(lora: LoraSection, folder: Path, adapter: Mapping[str, Tensor]) -> None:
    """Write an adapter in every format: a peft folder, the other two formats' files in it.

    Args:
        lora: Rank and strength.
        folder: Of the export; a former one is replaced.
        adapter: By `reward_tuning.lora.adapter.adapter_state`'s names.

    Raises:
        TuningError: The disk is full.
    """
    paths = [name.removesuffix(".lora_A.weight") for name in adapter if ".lora_A." in name]
    state = {
        path: (adapter[f"{path}.lora_A.weight"].cpu(), adapter[f"{path}.lora_B.weight"].cpu())
        for path in paths
    }
    for left in folder.parent.glob(f".{folder.name}.*"):  # of a run killed while it exported
        shutil.rmtree(left, ignore_errors=True)
    weights = LoraWeights(lora.rank, lora.alpha, state)
    export_adapter(weights, folder, "peft")
    export_adapter(weights, folder / DIFFUSERS_FILE, "diffusers")
    export_adapter(weights, folder / ORIGINAL_FILE, "original")
