"""Plan and write the weights of one component: names, dtypes, files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from base_model.errors import GeneratorError
from base_model.files.safetensors_writer import DTYPES, TensorSpec, write_tensors
from base_model.files.weight_files import WeightFiles
from base_model.loading.config_conversion import Part, written
from base_model.loading.key_map import to_diffusers

WEIGHT_NAME = "diffusion_pytorch_model"
"""Name of the weight files in both layouts, without the extension."""


@dataclass(frozen=True)
class Change:
    """A change of the transformer's weights on their way into the new checkpoint.

    Attributes:
        tensor: From diffusers' name of a parameter, its tensor as stored, and the dtype it is
            stored in afterwards, to the new tensor in that dtype.
        metadata: From the metadata of the source's files to that of the changed ones.
    """

    tensor: Callable[[str, Tensor, torch.dtype], Tensor]
    metadata: Callable[[Mapping[str, str]], Mapping[str, str]]


@dataclass(frozen=True)
class PlannedWeights:
    """Plan of one component's weights.

    Attributes:
        part: Component.
        source: Source files.
        names: Name in the source, by new name.
        shards: Tensors of each new file, by its name.
    """

    part: Part
    source: WeightFiles
    names: Mapping[str, str]
    shards: Mapping[str, tuple[TensorSpec, ...]]

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(spec.nbytes for specs in self.shards.values() for spec in specs)


def planned(
    part: Part,
    source: WeightFiles,
    names: Mapping[str, str],
    dtype: torch.dtype | None,
    max_shard_size: str | None,
) -> PlannedWeights:
    """Plan the files of one component.

    Args:
        part: Component.
        source: Source files.
        names: Name in the source, by new name.
        dtype: Dtype of the floating tensors; None keeps theirs.
        max_shard_size: Largest size of one file, such as "5GB"; None writes one file.

    Raises:
        GeneratorError: A dtype cannot be written, or the size is invalid.
    """
    unknown = sorted({source.dtypes[name] for name in names.values()} - DTYPES.keys())
    if unknown:
        raise GeneratorError(
            f"{source.folder}: tensors of dtype {', '.join(unknown)} cannot be converted; "
            f"allowed: {', '.join(DTYPES)}. Save the checkpoint in one of these."
        )
    specs = [TensorSpec(new, source.dtypes[old], source.shapes[old]) for new, old in names.items()]
    if dtype is not None:
        asked = next(name for name, value in DTYPES.items() if value == dtype)
        specs = [
            replace(spec, dtype=asked) if DTYPES[spec.dtype].is_floating_point else spec
            for spec in specs
        ]
    return PlannedWeights(part, source, names, _shards(specs, max_shard_size))


def _shards(
    specs: list[TensorSpec], max_shard_size: str | None
) -> dict[str, tuple[TensorSpec, ...]]:
    """Distribute tensors over files; several files are named as the hub's library does."""
    if max_shard_size is None:
        return {f"{WEIGHT_NAME}.safetensors": tuple(specs)}
    from huggingface_hub import split_state_dict_into_shards_factory

    by_name = {spec.name: spec for spec in specs}
    try:
        if max_shard_size.lstrip().startswith("-"):
            raise ValueError("it is below 0")
        split = split_state_dict_into_shards_factory(
            by_name,
            get_storage_size=lambda spec: spec.nbytes,
            filename_pattern=WEIGHT_NAME + "{suffix}.safetensors",
            max_shard_size=max_shard_size,
        )
    except ValueError as error:
        raise GeneratorError(
            f"The shard size {max_shard_size!r} is invalid: {error}. Give for example 5GB or 500MB."
        ) from error
    return {
        file: tuple(by_name[name] for name in names)
        for file, names in split.filename_to_tensors.items()
    }


def write_weights(
    weights: PlannedWeights,
    folder: Path,
    done: Callable[[str, int], None],
    change: Change | None = None,
) -> None:
    """Write the files, and their index if there are several.

    Args:
        weights: Plan of the component.
        folder: New folder of the component.
        done: Callback, called after each tensor with its file and its size in bytes.
        change: Change of the weights; None keeps them.

    Raises:
        OSError: A file cannot be written.
    """
    folder.mkdir()
    dtypes = {s.name: DTYPES[s.dtype] for specs in weights.shards.values() for s in specs}
    metadata = weights.source.metadata
    if change is not None:
        metadata = change.metadata(metadata)
    with weights.source.opened() as read:

        def tensor(name: str) -> Tensor:
            found = read(weights.names[name])
            if change is not None:
                return change.tensor(to_diffusers(name), found, dtypes[name])
            return found.to(dtypes[name])

        for file, specs in weights.shards.items():
            write_tensors(
                folder / file,
                specs,
                tensor,
                metadata=metadata,
                wrote=partial(done, f"{weights.part}/{file}"),
            )
    if len(weights.shards) > 1:
        index = {
            "metadata": {"total_size": weights.nbytes},
            "weight_map": {s.name: file for file, specs in weights.shards.items() for s in specs},
        }
        (folder / f"{WEIGHT_NAME}.safetensors.index.json").write_bytes(written(index).encode())
