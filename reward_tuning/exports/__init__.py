"""Adapters in and out: a peft folder, a diffusers file, the original trainer's file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import torch
from torch import nn

from reward_tuning.errors import TuningError
from reward_tuning.exports import diffusers_file, original_file, peft_folder
from reward_tuning.exports.tensor_file import read_names
from reward_tuning.lora import LoraWeights

ExportFormat = Literal["peft", "diffusers", "original"]
FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
# The name diffusers looks for in a folder.
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"

__all__ = [
    "DIFFUSERS_FILE",
    "FORMATS",
    "ExportFormat",
    "adapter_format",
    "export_adapter",
    "import_adapter",
]


def export_adapter(
    weights: LoraWeights,
    path: str | Path,
    format: ExportFormat,
    *,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write an adapter; whole or not at all.

    Args:
        weights: what `lora_weights` or `import_adapter` returned.
        path: a folder for `peft`, a file for the others.
        format: `peft`, `diffusers` or `original`.
        dtype: of the stored matrices; fp32 comes back bit for bit, bf16 halves the file.

    Returns:
        The path.

    Raises:
        TuningError: an unknown format, a file name without .safetensors, or a place that cannot
            be written.
    """
    path = Path(path)
    if format not in FORMATS:
        raise TuningError(f"export format is {format!r}; allowed are {', '.join(FORMATS)}")
    if format != "peft" and path.suffix != ".safetensors":
        raise TuningError(
            f"{path}: a {format} export is one file whose name ends in .safetensors; got "
            f"{path.suffix or 'no ending'}"
        )
    match format:
        case "peft":
            peft_folder.write(weights, path, dtype)
        case "diffusers":
            diffusers_file.write(weights, path, dtype)
        case "original":
            original_file.write(weights, path, dtype)
    return path


def import_adapter(path: str | Path, transformer: nn.Module) -> LoraWeights:
    """Read an adapter of any of the formats, recognised by its content.

    Args:
        path: a file, or a folder with a peft adapter or a diffusers file in it.
        transformer: the model it is for; only module names and sizes are read, so it may be on the
            meta device and may carry an adapter.

    Returns:
        The adapter, fp32, on the CPU; `attach_weights` puts it on a transformer.

    Raises:
        TuningError: nothing there, a damaged or foreign file, or an adapter for another model.
    """
    path = Path(path)
    found = adapter_format(path)
    if path.is_dir() and found == "diffusers":
        path = path / DIFFUSERS_FILE
    match found:
        case "peft":
            return peft_folder.read(path, transformer)
        case "diffusers":
            return diffusers_file.read(path, transformer)
        case "original":
            return original_file.read(path, transformer)


def adapter_format(path: str | Path) -> ExportFormat:
    """Which format a file or folder is in.

    Raises:
        TuningError: nothing there, or none of the formats.
    """
    path = Path(path)
    if path.is_dir():
        if (path / peft_folder.CONFIG).is_file():
            return "peft"
        if (path / DIFFUSERS_FILE).is_file():
            return "diffusers"
        raise TuningError(
            f"{path}: holds neither {peft_folder.CONFIG} (peft) nor {DIFFUSERS_FILE} (diffusers); "
            "name the adapter's own folder or file"
        )
    names = read_names(path)
    if any(key.startswith(original_file.PREFIX) for key in names):
        return "original"
    if any(key.endswith(".lora_A.weight") for key in names):
        return "diffusers"
    first = f"its first key is {min(names)!r}" if names else "it holds no tensors"
    raise TuningError(
        f"{path}: no adapter that is known here ({first}); expected are keys "
        f"{original_file.PREFIX}… (original trainer) or ….lora_A.weight (diffusers)"
    )
