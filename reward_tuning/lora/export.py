"""Write adapters in three formats, and read them in any layout that other tools write."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn

from reward_tuning.errors import TuningError
from reward_tuning.lora.adapter import LoraWeights
from reward_tuning.lora.formats import FORMATS
from reward_tuning.lora.formats.adapter_files import DIFFUSERS_FILE, find_adapter, read_adapter
from reward_tuning.lora.formats.fitting import checked_keys, fitted
from reward_tuning.lora.names import factors_by_module
from reward_tuning.schema.sections import LoraSection

ORIGINAL_FILE = "original.safetensors"

__all__ = [
    "DIFFUSERS_FILE",
    "FORMATS",
    "check_adapter",
    "export_adapter",
    "export_every_format",
    "import_adapter",
]


def export_adapter(
    weights: LoraWeights,
    path: str | Path,
    format: str,
    *,
    dtype: torch.dtype = torch.float32,
    about: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write an adapter, whole or not at all.

    Args:
        weights: Adapter from `lora_weights` or `import_adapter`.
        path: Folder for `peft`, a .safetensors file for the other formats.
        format: A key of `FORMATS`: `peft`, `diffusers` or `original`.
        dtype: Type of the stored factors; fp32 reads back bit for bit, bf16 halves the file.
        about: Metadata on the adapter's origin (`reward_tuning.lora.metadata`).

    Returns:
        The path.

    Raises:
        TuningError: Unknown format, a file name without .safetensors, a value that the dtype cannot
            hold, or a target that cannot be written.
    """
    path = Path(path)
    if format not in FORMATS:
        raise TuningError(f"export format is {format!r}; allowed: {', '.join(FORMATS)}")
    if not FORMATS[format].is_folder and path.suffix != ".safetensors":
        raise TuningError(
            f"{path}: a {format} export is a file that ends in .safetensors; got "
            f"{path.suffix or 'no suffix'}"
        )
    _check_finite(weights, path, dtype)
    writer = import_module(f"reward_tuning.lora.formats.{FORMATS[format].module}")
    writer.write(weights, path, dtype, about)
    return path


def _check_finite(weights: LoraWeights, path: Path, dtype: torch.dtype) -> None:
    """Refuse what a file would hold as infinity; one format has the strength in its up factors.

    Raises:
        TuningError: Names the first module.
    """
    for module, (down, up) in weights.state.items():
        stored = (down.to(dtype), up.to(dtype), (up * weights.strength).to(dtype))
        if not all(bool(factor.isfinite().all()) for factor in stored):
            raise TuningError(
                f"{path}: {module} would hold values that {str(dtype).removeprefix('torch.')} "
                "cannot; use a smaller --strength, or a wider --dtype"
            )


def export_every_format(
    lora: LoraSection,
    folder: Path,
    adapter: Mapping[str, Tensor],
    about: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write an adapter in every format: a peft folder with a file of each other format in it.

    Args:
        lora: Section with rank and alpha.
        folder: Target; an earlier export is replaced.
        adapter: Tensors as `adapter_state` names them.
        about: Metadata on the run (`reward_tuning.lora.metadata.training_metadata`).

    Raises:
        TuningError: The disk is full.
    """
    factors = factors_by_module(adapter)
    state = {path: (down.cpu(), up.cpu()) for path, (down, up) in factors.items()}
    for left in folder.parent.glob(f".{folder.name}.*"):  # of a run that was killed in an export
        shutil.rmtree(left, ignore_errors=True)
    weights = LoraWeights(lora.rank, lora.alpha, state)
    export_adapter(weights, folder, "peft", about=about)
    export_adapter(weights, folder / DIFFUSERS_FILE, "diffusers", about=about)
    export_adapter(weights, folder / ORIGINAL_FILE, "original", about=about)


def check_adapter(path: str | Path) -> None:
    """Check an adapter as far as possible without its model.

    Raises:
        TuningError: As `import_adapter`, except for modules and shapes.
    """
    file = find_adapter(Path(path))
    checked_keys(read_adapter(file).tensors, str(file.weights))


def import_adapter(path: str | Path, transformer: nn.Module) -> LoraWeights:
    """Read an adapter in any layout of docs/lora.md, recognised by its content.

    Ranks and strengths that differ by module become one rank and one strength with the same effect
    (`reward_tuning.lora.formats.fitting.uniform`).

    Args:
        path: File (safetensors or `torch.save`), or folder with an adapter in it.
        transformer: Model of the adapter; only module names and sizes are read, so it may be on the
            meta device and may have an adapter.

    Returns:
        The adapter, fp32, on the CPU; `attach_weights` puts it on a transformer.

    Raises:
        TuningError: No adapter, a damaged or foreign file, an adapter for another model, or one
            that is not a plain LoRA, whose kind the message names.
    """
    file = find_adapter(Path(path))
    read = read_adapter(file)
    weights = fitted(read.tensors, read.strength, transformer, str(file.weights))
    if read.folded is None:
        return weights
    factor = weights.alpha / read.folded  # 1 / strength: alpha is the rank in such a file
    state = {name: (down, up * factor) for name, (down, up) in weights.state.items()}
    if not all(up.isfinite().all() for _, up in state.values()):
        raise TuningError(
            f"{file.weights}: its up factors divided by alpha / rank ({read.folded:g} / "
            f"{weights.rank}) exceed float32; original_alpha in its header is wrong"
        )
    return LoraWeights(weights.rank, read.folded, state)
