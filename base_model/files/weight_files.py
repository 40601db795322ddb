"""Find the safetensors files of a component, check their headers and read them by tensor."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from base_model.errors import GeneratorError

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_NAMED_AT_MOST = 6
_NUMBERED = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class WeightFiles:
    """Headers of a component's tensors, in one file or in shards.

    Attributes:
        folder: Folder of the component.
        files: File of each tensor, by tensor name.
        shapes: Shape of each tensor, by tensor name.
        dtypes: Dtype of each tensor by its name in the format ("F32"), by tensor name.
        metadata: Metadata of all files, merged.
    """

    folder: Path
    files: Mapping[str, Path]
    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]
    metadata: Mapping[str, str]

    def read(self, dtype: torch.dtype, device: str | torch.device) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, tensor) one by one, floating tensors in `dtype`.

        The tensors are copies: the files may be replaced afterwards.
        """
        for path in sorted(set(self.files.values())):
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                    tensor = file.get_tensor(name)
                    kept = dtype if tensor.is_floating_point() else tensor.dtype
                    yield name, tensor.to(device=device, dtype=kept, copy=True)

    @contextmanager
    def opened(self) -> Iterator[Callable[[str], Tensor]]:
        """Yield a function that reads one tensor by its name, unchanged, on the CPU."""
        with ExitStack() as stack:
            found = {
                path: stack.enter_context(safe_open(path, "pt"))
                for path in set(self.files.values())
            }
            yield lambda name: found[self.files[name]].get_tensor(name)


def find_weights(folder: Path) -> WeightFiles:
    """Find the safetensors files of a component and read their headers.

    Args:
        folder: Folder of a component, such as `transformer/`.

    Returns:
        File and shape of each tensor.

    Raises:
        GeneratorError: There is no safetensors file, a shard is missing, a file is truncated or of
            another format, or the choice of files is ambiguous.
    """
    files: dict[str, Path] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    metadata: dict[str, str] = {}
    for path in _paths(folder):
        try:
            with safe_open(path, "pt") as file:
                metadata |= file.metadata() or {}
                for name in file.keys():  # noqa: SIM118 (safe_open is no mapping)
                    if name in files:
                        raise GeneratorError(
                            f"{folder}: the tensor {name} is in {files[name].name} and in "
                            f"{path.name}. Copy or save the whole folder again."
                        )
                    files[name] = path
                    about = file.get_slice(name)
                    shapes[name], dtypes[name] = tuple(about.get_shape()), about.get_dtype()
        except (SafetensorError, OSError) as error:
            raise _unreadable(path, error) from error
    return WeightFiles(folder, files, shapes, dtypes, metadata)


def _unreadable(path: Path, error: Exception) -> GeneratorError:
    with path.open("rb") as file:
        pointer = file.read(len(_LFS_POINTER)) == _LFS_POINTER
    if pointer:
        return GeneratorError(
            f"{path} is a Git LFS pointer, not the weights: the repository was cloned without "
            "them. Run `git lfs pull` in it, or `hf download` the checkpoint."
        )
    return GeneratorError(
        f"{path} ({path.stat().st_size:,} bytes) cannot be read as safetensors: {error}. "
        "It is truncated or damaged: download or copy it again."
    )


def _paths(folder: Path) -> list[Path]:
    indices = sorted(folder.glob("*.safetensors.index*.json"))  # .index.fp16.json of a variant, too
    found = sorted(folder.glob("*.safetensors"))
    if len(indices) == 1:
        names = _shards(indices[0])
        missing = [name for name in names if not (folder / name).is_file()]
        if missing or not names:
            raise GeneratorError(
                f"{indices[0]} names {len(names)} files, of which {len(missing)} are missing: "
                f"{shorten(missing)}. Download or copy the whole folder again."
            )
        return [folder / name for name in names]
    if not indices and _are_numbered(found):
        return found
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
            "opened and are not read. Save the model again as safetensors: "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), NEW_FILE)."
        )
    raise GeneratorError(
        f"{folder} holds no *.safetensors file. Download or copy the whole folder again."
    )


def _are_numbered(found: list[Path]) -> bool:
    """Return whether the names are those of all shards of one file, which need no index.

    Raises:
        GeneratorError: Some shards are missing.
    """
    parts = [_NUMBERED.fullmatch(path.name) for path in found]
    kinds = {(part[1], part[3]) if part else None for part in parts}
    if len(kinds) != 1 or None in kinds:
        return False
    ((_, count),) = (kind for kind in kinds if kind)
    here = {int(part[2]) for part in parts if part}
    missing = sorted(set(range(1, int(count) + 1)) - here)
    if missing:
        raise GeneratorError(
            f"{found[0].parent} holds {len(found)} of {int(count)} shards and no index; "
            f"{shorten([f'number {number}' for number in missing])} are missing. Download or "
            "copy the whole folder again."
        )
    return True


def _shards(index: Path) -> list[str]:
    """Return the files that an index names."""
    names = read_json(index).get("weight_map", {})
    files = list(names.values()) if isinstance(names, dict) else [names]
    strange = [repr(name) for name in files if not isinstance(name, str) or Path(name).name != name]
    if strange:
        raise GeneratorError(
            f"{index}: weight_map must name files of this folder, got {shorten(strange)}. Download "
            "or copy it again."
        )
    return sorted(set(files))


def load_strictly(
    model: Any,
    weights: WeightFiles,
    *,
    rename: Mapping[str, str],
    dtype: torch.dtype,
    device: str | torch.device,
) -> None:
    """Load weights into a model on the meta device; every tensor must exist and fit.

    No weight is in memory twice: each tensor is read, cast and assigned.

    Args:
        model: Module whose parameters are on the meta device.
        weights: Weight files.
        rename: Name in the model, by name in the files.
        dtype: Dtype of the loaded weights.
        device: Device of the loaded weights.

    Raises:
        GeneratorError: Names or shapes differ; nothing is loaded then.
    """
    check_fit(model, weights, rename=rename)
    state = {rename[name]: tensor for name, tensor in weights.read(dtype, device)}
    model.load_state_dict(state, strict=True, assign=True)


def check_fit(model: Any, weights: WeightFiles, *, rename: Mapping[str, str]) -> None:
    """Compare the names and shapes in files with those of a model; read no tensor.

    Args:
        model: Module on any device.
        weights: Weight files.
        rename: Name in the model, by name in the files.

    Raises:
        GeneratorError: Names the tensors that are missing, unexpected, of another shape or of
            integers.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {rename[name]: shape for name, shape in weights.shapes.items()}
    twice = [
        f"{name} and {rename[name]}"
        for name in sorted(weights.shapes)
        if rename[name] != name and rename[name] in weights.shapes
    ]
    missing = sorted(expected.keys() - given.keys())
    unexpected = sorted(given.keys() - expected.keys())
    misfit = [
        f"{name} {given[name]} instead of {shape}"
        for name, shape in sorted(expected.items())
        if name in given and given[name] != shape
    ]
    packed = [
        f"{name} {weights.dtypes[name]}"
        for name in sorted(weights.dtypes)
        if not weights.dtypes[name].startswith(("F", "BF"))
    ]
    problems = [
        f"{len(names)} {what}: {shorten(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misfit),
            ("present twice, with the names of both layouts", twice),
            ("without floating-point numbers, which means they are quantised", packed),
        )
        if names
    ]
    if problems:
        raise GeneratorError(
            f"{weights.folder}: the weights do not fit config.json. Tensors {'; '.join(problems)}. "
            "Weights and config.json must be of the same checkpoint."
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raise GeneratorError if the file is missing or is no JSON object."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise GeneratorError(
            f"{path} is missing. Download or copy the whole checkpoint again."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise _no_json(path, error) from error
    return json_object(path, text)


def json_object(path: Path, text: str) -> dict[str, Any]:
    """Parse a JSON object; raise GeneratorError, which names the file, if it is none."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _no_json(path, error) from error
    if not isinstance(content, dict):
        raise GeneratorError(f"{path} must hold a JSON object, got a {type(content).__name__}.")
    return content


def _no_json(path: Path, error: Exception) -> GeneratorError:
    return GeneratorError(f"{path} cannot be read as JSON: {error}. Download or copy it again.")


def shorten(names: list[str]) -> str:
    """Shorten a list for a message: the first few names and the number of the others."""
    more = len(names) - _NAMED_AT_MOST
    return ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
