"""Merge an adapter into its generator: a checkpoint that needs no LoRA reader.

W' = W + strength * alpha / rank * up down, tensor by tensor from file to file, so that the memory
is that of the adapter and of one layer. The sum is computed in float32 (float64 for a float64
weight) and rounded to the dtype of the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor

from base_model.convert.conversion import Converted, Progress, convert_checkpoint
from base_model.convert.weights import Change
from base_model.core.family import FAMILY
from base_model.files.weight_files import find_weights
from base_model.loading.checkpoint import local_folder
from base_model.loading.key_map import Layout, layout_of
from base_model.loading.name_prefixes import plain_names
from reward_tuning.errors import TuningError
from reward_tuning.lora.adapter import LoraWeights
from reward_tuning.lora.metadata import ARCHITECTURE, DIFFUSERS, ORIGINAL, OWN, TITLE
from reward_tuning.lora.rank import scaled_by

MERGED = f"{OWN}merged"
ROUNDING_WARNED = 0.1
"""Rounding error from which the user is warned: a tenth of what the training changed."""
# Entries of a LoRA's file that are about the file, or about a network that a merged one lacks.
_OF_THE_LORA = ("ss_network_", "modelspec.usage_hint", "modelspec.trigger_phrase")


@dataclass(frozen=True)
class Merged:
    """Result of a merge.

    Attributes:
        checkpoint: The new checkpoint.
        modules: Number of changed layers.
        rounding: Relative Frobenius error of the change of all layers: what rounding to the dtype
            of the file did to it.
    """

    checkpoint: Converted
    modules: int
    rounding: float

    def rounding_text(self) -> str:
        """Describe the rounding, with advice where it is large."""
        text = (
            f"{self.modules} layers changed; rounding to the dtype of the files makes an error of "
            f"{self.rounding:.2g} of the LoRA's change"
        )
        if self.rounding < ROUNDING_WARNED:
            return text
        return f"warning: {text}: use --dtype float32, or keep the LoRA apart from its generator"


class _Merge:
    """Add an adapter to the weights that pass by, and measure the rounding.

    Args:
        weights: Adapter, with the strength to bake in.
    """

    def __init__(self, weights: LoraWeights) -> None:
        self.state, self.scale = weights.state, weights.strength
        self.done: set[str] = set()
        self.lost = self.norms = 0.0

    def __call__(self, name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        path = name.removesuffix(".weight")
        if path not in self.state or path == name:
            return tensor.to(dtype)
        down, up = self.state[path]
        exact = torch.promote_types(tensor.dtype, torch.float32)
        before = tensor.to(exact)
        change = (up.to(exact) @ down.to(exact)).mul_(self.scale)
        merged = (before + change).to(dtype)
        if not bool(merged.to(exact).isfinite().all()):
            raise TuningError(
                f"merging {path} gives values that {str(dtype).removeprefix('torch.')} cannot "
                "hold; use a smaller --strength, or a wider --dtype"
            )
        self.norms += float(change.double().norm()) ** 2
        self.lost += float((merged.to(exact) - before - change).double().norm()) ** 2
        self.done.add(path)
        return merged


def merge_into_checkpoint(
    weights: LoraWeights,
    checkpoint: Path | str,
    target: Path,
    *,
    layout: Layout | None = None,
    strength: float = 1.0,
    dtype: torch.dtype | None = None,
    max_shard_size: str | None = None,
    about: Mapping[str, str] = MappingProxyType({}),
    progress: Progress = lambda file, done, total: None,
) -> Merged:
    """Write a checkpoint with an adapter merged into its transformer, whole or not at all.

    9 parameters: each is an option of `reward-tuning export --merge`.

    Args:
        weights: Adapter that fits the checkpoint (`import_adapter`).
        checkpoint: Folder or hub id of the base, in either layout.
        target: New folder; it must not exist.
        layout: Layout of the result; None keeps the base's.
        strength: Strength to bake in; 1 is as trained.
        dtype: Dtype of transformer and VAE; None keeps that of each tensor.
        max_shard_size: Largest size of one weight file, such as "5GB"; None writes single files.
        about: Metadata on the adapter's origin (`reward_tuning.lora.metadata`).
        progress: Callback with the current file, the bytes done and the bytes in all.

    Returns:
        The new checkpoint, and the rounding error.

    Raises:
        TuningError: The strength is 0 or not finite, or a merged value exceeds the dtype.
        GeneratorError: As `convert_checkpoint`.
    """
    merge = _Merge(scaled_by(weights, strength))
    if target.exists():  # before a download
        raise TuningError(f"{target} exists and is not overwritten; give another --output")
    folder = local_folder(checkpoint)
    layout = layout or _layout(folder)
    converted = convert_checkpoint(
        folder,
        target,
        layout,
        dtype=dtype,
        max_shard_size=max_shard_size,
        progress=progress,
        change=Change(merge, lambda old: _kept(old) | _metadata(weights, strength, layout, about)),
        link=True,
    )
    assert merge.done == weights.state.keys(), "the adapter was checked against the transformer"
    rounding = math.sqrt(merge.lost / merge.norms) if merge.norms else 0.0
    return Merged(converted, len(merge.done), rounding)


def _layout(folder: Path) -> Layout:
    names = plain_names(find_weights(folder / "transformer"), FAMILY.transformer_anchor)
    return layout_of(names.values())


def _kept(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the base's metadata without the hashes of its tensors."""
    stale = ("modelspec.hash_", "sshs_")
    return {"format": "pt"} | {k: v for k, v in metadata.items() if not k.startswith(stale)}


def _metadata(
    weights: LoraWeights, strength: float, layout: Layout, about: Mapping[str, str]
) -> dict[str, str]:
    """Describe the merged transformer in the header of its files."""
    kept = {name: text for name, text in about.items() if not name.startswith(_OF_THE_LORA)}
    title = about.get(TITLE, f"{FAMILY.name} LoRA")
    merged = {"strength": strength, "rank": weights.rank, "modules": len(weights.state)}
    return {
        **kept,
        TITLE: f"{title}, merged",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": ARCHITECTURE,
        "modelspec.implementation": DIFFUSERS if layout == "diffusers" else ORIGINAL,
        "modelspec.merged_from": title,
        "ss_base_model_version": ARCHITECTURE,
        MERGED: json.dumps(merged),
    }
