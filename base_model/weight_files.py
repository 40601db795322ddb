"""Safetensors files of one component: found, checked by their headers, read tensor by tensor."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from base_model.errors import GeneratorError

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_NAMED_AT_MOST = 6


@dataclass(frozen=True)
class WeightFiles:
    """The tensors of a component's folder, single file or sharded, none of them read yet.

    Attributes:
        folder: Where they lie.
        files: File of each tensor, by tensor name.
        shapes: Shape of each tensor, by tensor name.
    """

    folder: Path
    files: Mapping[str, Path]
    shapes: Mapping[str, tuple[int, ...]]

    def read(self, dtype: torch.dtype, device: str | torch.device) -> Iterator[tuple[str, Tensor]]:
        """Yields (name, tensor), floating tensors in ``dtype``; one tensor is in flight at a time.

        The tensors are copies: the files may be replaced afterwards.
        """
        for path in sorted(set(self.files.values())):
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                    tensor = file.get_tensor(name)
                    kept = dtype if tensor.is_floating_point() else tensor.dtype
                    yield name, tensor.to(device=device, dtype=kept, copy=True)


def find_weights(folder: Path) -> WeightFiles:
    """Looks up the safetensors files of a component and reads their headers.

    Args:
        folder: A component's folder, such as ``transformer/``.

    Returns:
        Where each tensor is, with its shape.

    Raises:
        GeneratorError: When there is no safetensors file, a shard is missing, a file is truncated
            or is none, or several files could be meant.
    """
    files: dict[str, Path] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for path in _paths(folder):
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                    files[name] = path
                    shapes[name] = tuple(file.get_slice(name).get_shape())
        except (SafetensorError, OSError) as error:
            raise GeneratorError(
                f"{path} ({path.stat().st_size:,} bytes) cannot be read as safetensors: {error}. "
                "It is truncated or damaged: download or copy it again."
            ) from error
    return WeightFiles(folder, files, shapes)


def _paths(folder: Path) -> list[Path]:
    indices = sorted(folder.glob("*.safetensors.index.json"))
    found = sorted(folder.glob("*.safetensors"))
    if len(indices) == 1:
        names = sorted(set(read_json(indices[0]).get("weight_map", {}).values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing or not names:
            raise GeneratorError(
                f"{indices[0]} names {len(names)} files of which {len(missing)} are not there: "
                f"{shorten(missing)}. Download or copy the whole folder again."
            )
        return [folder / name for name in names]
    if len(found) == 1:
        return found
    if found or indices:
        raise GeneratorError(
            f"{folder} holds {len(found)} safetensors files and {len(indices)} index files: "
            f"{shorten([p.name for p in found + indices])}. Keep one file, or shards with one "
            "*.safetensors.index.json."
        )
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in _PICKLES)
    if pickles:
        raise GeneratorError(
            f"{folder} holds only pickled weights ({shorten(pickles)}), which can run code when "
            "opened and are not read. Save the model again as safetensors."
        )
    raise GeneratorError(
        f"{folder} holds no *.safetensors file. Download or copy the whole folder again."
    )


def load_strictly(
    model: Any,
    weights: WeightFiles,
    *,
    rename: Mapping[str, str],
    dtype: torch.dtype,
    device: str | torch.device,
) -> None:
    """Gives a model on the meta device its weights; every tensor must be there and fit.

    Nothing is held twice: each tensor is read, cast and assigned.

    Args:
        model: Module whose parameters are on the meta device.
        weights: The files.
        rename: Name in the model, by name in the files.
        dtype: Dtype of the loaded weights.
        device: Where they go.

    Raises:
        GeneratorError: When names or shapes differ; nothing is loaded then.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {rename[name]: shape for name, shape in weights.shapes.items()}
    missing = sorted(expected.keys() - given.keys())
    unexpected = sorted(given.keys() - expected.keys())
    misfit = [
        f"{name} {given[name]} instead of {shape}"
        for name, shape in sorted(expected.items())
        if name in given and given[name] != shape
    ]
    problems = [
        f"{len(names)} {what}: {shorten(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misfit),
        )
        if names
    ]
    if problems:
        raise GeneratorError(
            f"{weights.folder}: the weights do not fit config.json. Tensors {'; '.join(problems)}. "
            "Weights and config.json must be of the same checkpoint."
        )
    state = {rename[name]: tensor for name, tensor in weights.read(dtype, device)}
    model.load_state_dict(state, strict=True, assign=True)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; raises GeneratorError when the file is missing or is no JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise GeneratorError(
            f"{path} is missing. Download or copy the whole checkpoint again."
        ) from error
    except (OSError, ValueError) as error:
        raise GeneratorError(
            f"{path} cannot be read as JSON: {error}. Download or copy it again."
        ) from error
    if not isinstance(content, dict):
        raise GeneratorError(f"{path} must hold a JSON object, got a {type(content).__name__}.")
    return content


def shorten(names: list[str]) -> str:
    """A list for an error message: the first few names and how many more."""
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
