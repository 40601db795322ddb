"""The weights of one component as a conversion will write them: names, dtypes, files."""

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

WEIGHT_NAME = "diffusion_pytorch_model"
"""What both layouts call their weight files, before the ending."""


@dataclass(frozen=True)
class PlannedWeights:
    """One component's weights as they will be written.

    Attributes:
        part: Which component.
        source: Where they are read from.
        names: New name to name in the source.
        shards: Name of each new file to its tensors.
    """

    part: Part
    source: WeightFiles
    names: Mapping[str, str]
    shards: Mapping[str, tuple[TensorSpec, ...]]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(spec.nbytes for specs in self.shards.values() for spec in specs)


def planned(
    part: Part,
    source: WeightFiles,
    names: Mapping[str, str],
    dtype: torch.dtype | None,
    max_shard_size: str | None,
) -> PlannedWeights:
    """Says what will be written.

    Args:
        part: Which component.
        source: Its weights.
        names: New name to name in the source.
        dtype: Of the floating tensors; None keeps theirs.
        max_shard_size: Most bytes of one file, such as "5GB"; None is one file.

    Raises:
        GeneratorError: When a dtype cannot be written, or the size is none.
    """
    unknown = sorted({source.dtypes[name] for name in names.values()} - DTYPES.keys())
    if unknown:
        raise GeneratorError(
            f"{source.folder}: tensors of dtype {', '.join(unknown)} cannot be converted; known "
            f"are {', '.join(DTYPES)}. Save the checkpoint in one of these."
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
    """Which tensor goes into which file; several files as the hub's library names them."""
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
            f"The shard size {max_shard_size!r} is no size: {error}. Give for example 5GB or 500MB."
        ) from error
    return {
        file: tuple(by_name[name] for name in names)
        for file, names in split.filename_to_tensors.items()
    }


def write_weights(weights: PlannedWeights, folder: Path, done: Callable[[str, int], None]) -> None:
    """Writes the files, and their index where there are several.

    Args:
        weights: What is to be written.
        folder: The component's new folder.
        done: Told the file and the bytes of each tensor after it is written.

    Raises:
        OSError: When it cannot be written.
    """
    folder.mkdir()
    dtypes = {s.name: DTYPES[s.dtype] for specs in weights.shards.values() for s in specs}
    with weights.source.opened() as read:

        def tensor(name: str) -> Tensor:
            return read(weights.names[name]).to(dtypes[name])

        for file, specs in weights.shards.items():
            write_tensors(
                folder / file,
                specs,
                tensor,
                metadata=weights.source.metadata,
                wrote=partial(done, f"{weights.part}/{file}"),
            )
    if len(weights.shards) > 1:
        index = {
            "metadata": {"total_size": weights.nbytes},
            "weight_map": {s.name: file for file, specs in weights.shards.items() for s in specs},
        }
        (folder / f"{WEIGHT_NAME}.safetensors.index.json").write_bytes(written(index).encode())
