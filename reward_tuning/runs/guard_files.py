"""What the guards keep in the run folder: their rows, and the adapters that may be exported."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from base_model.files.reproducible import safetensors_bytes
from reward_tuning.errors import TuningError
from reward_tuning.files.atomic_write import atomic_write, not_written
from reward_tuning.files.json_text import parsed_json
from reward_tuning.runs.checkpoints import adapter_header
from reward_tuning.runs.loop import is_due
from reward_tuning.section import Section

_BEST = re.compile(r"best-(\d{6,})\.safetensors")


def read_guard_rows(path: Path, steps: int, every: int, final: int) -> list[dict[str, Any]]:
    """Read the rows of guards.jsonl that a run of so many steps has made on its way.

    Args:
        path: Path of the file; none means no rows.
        steps: Steps done so far. Later rows are of a run that was killed; it makes them again.
        every: Steps between two evaluations.
        final: Last step of the run, which is evaluated as well. A row in between was made after the
            last step of a shorter run, where a longer one makes none.

    Raises:
        TuningError: The file is damaged.
    """
    if not path.exists():
        return []
    try:
        rows = [parsed_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [row for row in rows if row["step"] <= steps and is_due(row["step"], every, final)]
    except (ValueError, KeyError, TypeError) as error:
        raise TuningError(
            f"{path} is damaged ({error}); start a new run with another output"
        ) from error


def write_guard_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write all rows, whole or not at all.

    Raises:
        TuningError: The disk is full.
    """
    lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    atomic_write(path, "".join(f"{line}\n" for line in lines).encode())


def best_file(folder: Path, step: int) -> Path:
    """Return the file of an adapter that was the best when it was measured.

    Args:
        folder: Folder of the checkpoints.
        step: Steps it has made.
    """
    return folder / f"best-{step:06d}.safetensors"


def save_best(folder: Path, step: int, adapter: Mapping[str, Tensor], recipe: Section) -> None:
    """Write an adapter as it would be exported.

    Raises:
        TuningError: The disk is full.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter.items()}
    header = adapter_header(recipe.model_dump(mode="json", include={"lora"}))
    atomic_write(best_file(folder, step), safetensors_bytes(tensors, header))


def read_best(folder: Path, step: int) -> dict[str, Tensor]:
    """Read an adapter of `save_best`.

    Raises:
        TuningError: It is missing or damaged.
    """
    path = best_file(folder, step)
    try:
        return safetensors.torch.load_file(path)
    except (OSError, SafetensorError) as error:
        raise TuningError(
            f"{path}, the best checkpoint of the run, cannot be read ({error}). To export the last "
            "one instead, resume with guards.best=false"
        ) from error


def remove_best_but(folder: Path, needed: Iterable[int]) -> None:
    """Remove the adapters of other steps than these."""
    keep = set(needed)
    for path in folder.glob("best-*.safetensors"):
        found = _BEST.fullmatch(path.name)
        if found and int(found[1]) not in keep:
            try:
                path.unlink()
            except OSError as error:
                raise not_written(path, error) from error
