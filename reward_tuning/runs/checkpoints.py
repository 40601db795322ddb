"""Checkpoints of a run: everything that decides how it continues, written whole or not at all.

`checkpoints/step-NNNNNN/` is written under a temporary name, flushed to the disk and renamed; older
ones, also one of the same step, go only when the new one is in place. Every draw of a run comes
from its seed and a position (`reward_tuning.seeds`), so step and position restore all of them; the
state of the global random generators is kept as well, for what a judge or a library may draw.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from base_model.files.reproducible import safetensors_bytes
from reward_tuning.errors import TuningError
from reward_tuning.files.atomic_write import not_written, temporary_path
from reward_tuning.files.hashes import file_sha256, text_sha256
from reward_tuning.files.json_text import parsed_json
from reward_tuning.lora.formats.adapter_files import ADAPTER_FILE, EMA_FILE, STATE_FILE
from reward_tuning.lora.names import CONFIG_IN_HEADER
from reward_tuning.seeds import derive_seed

OPTIMISER_FILE, RNG_FILE = "optimiser.pt", "rng.pt"
ASIDE = "aside"
"""Of the temporary name of a whole checkpoint that makes place for another of its step."""
_NAME = re.compile(r"step-(\d{6,})")


class DamagedCheckpointError(TuningError):
    """A checkpoint whose files are not what was written."""


@dataclass(frozen=True)
class RunCheckpoint:
    """The state of a run after so many steps.

    Attributes:
        step: Optimiser steps done; also the state of the learning rate, which is a function of it.
        position: Clips or batches drawn so far, on all processes.
        bad_steps: Steps skipped so far.
        bad_in_a_row: Steps skipped since the last good one.
        adapter: The trained tensors by name: an adapter (`lora.adapter.adapter_state`), or all
            weights.
        optimiser: State dict of the optimiser.
        rng: State of the global random generators, from `rng_state`.
        recipe: The recipe as far as it must not change (`resumable.comparable`).
        fingerprints: Hashes of the checkpoints that were loaded, and of prompts or clips.
        versions: Versions of the libraries that decide a run's numbers.
        idle_steps: Steps so far whose gradient was zero.
        ema: The moving average, where it is on.
        ema_updates: Number of its updates.
        reward_window: Sum and number of the training rewards since the last guard evaluation.
        left: What is left to do after the step (`training_state.Left`); None for nothing.
    """

    step: int
    position: int
    bad_steps: int
    bad_in_a_row: int
    adapter: Mapping[str, Tensor]
    optimiser: Mapping[str, Any]
    rng: Mapping[str, Any]
    recipe: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    versions: Mapping[str, str] = field(default_factory=dict)
    idle_steps: int = 0
    ema: Mapping[str, Tensor] | None = None
    ema_updates: int = 0
    reward_window: tuple[float, int] = (0.0, 0)
    left: Mapping[str, Any] | None = None


def save_checkpoint(folder: Path, checkpoint: RunCheckpoint, *, keep: int) -> Path:
    """Write `folder/step-NNNNNN`, then delete all but the newest `keep`.

    Args:
        folder: Folder of all checkpoints of the run.
        checkpoint: The checkpoint to write; tensors may be on any device.
        keep: Number of checkpoints to keep, at least 1.

    Returns:
        The folder of this checkpoint.

    Raises:
        TuningError: The disk is full or cannot be written; earlier checkpoints are untouched.
    """
    final = folder / f"step-{checkpoint.step:06d}"
    temporary, aside = temporary_path(final), temporary_path(final, ASIDE)
    try:
        remove_leftovers(folder)
        temporary.mkdir(parents=True)
        _write(temporary, checkpoint)
        # One of this step is there: a damaged one, passed over by the resume, or the one with what
        # was left to do after the step (`training_state.Left`), perhaps the only one of the run.
        if final.exists():
            final.rename(aside)
        temporary.rename(final)
        _sync_folder(folder)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        raise not_written(final, error) from error
    finally:
        if aside.exists() and not final.exists():
            aside.rename(final)
        for path in (temporary, aside):
            shutil.rmtree(path, ignore_errors=True)
    for old in complete_checkpoints(folder)[:-keep]:
        _delete(old)
    return final


def complete_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints of a run, oldest first; half-written ones have temporary names."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def checkpoint_steps(folder: Path) -> list[int]:
    """Return the steps of the checkpoints of a run, in order."""
    return [int(path.name.removeprefix("step-")) for path in complete_checkpoints(folder)]


def read_checkpoint(path: Path) -> RunCheckpoint:
    """Read a checkpoint into the CPU's memory.

    Raises:
        DamagedCheckpointError: A file differs in some bit from what was written.
        TuningError: It was written before checkpoints had checksums.
    """
    try:
        state = parsed_json((path / STATE_FILE).read_text(encoding="utf-8"))
        if "step" in state and not {"sha256", "files"} & set(state):
            raise TuningError(
                f"the checkpoint {path} has no checksums: an older reward-tuning wrote it. Finish "
                "the run with that version, or start a new run with another output"
            )
        _check(path, state)
        has_ema = state.pop("has_ema")
        if "reward_window" in state:  # not in checkpoints of older versions
            total, count = state.pop("reward_window")
            state["reward_window"] = float(total), int(count)
        return RunCheckpoint(
            **state,
            adapter=safetensors.torch.load_file(path / ADAPTER_FILE),
            optimiser=torch.load(path / OPTIMISER_FILE, map_location="cpu", weights_only=True),
            rng=torch.load(path / RNG_FILE, map_location="cpu", weights_only=True),
            ema=safetensors.torch.load_file(path / EMA_FILE) if has_ema else None,
        )
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        EOFError,
        RuntimeError,
        pickle.UnpicklingError,
        SafetensorError,
    ) as error:
        if isinstance(error, TuningError):
            raise
        raise DamagedCheckpointError(f"the checkpoint {path} is damaged ({error})") from error


def seed_rng(seed: int) -> None:
    """Seed the global random generators, which start elsewhere in every process.

    The run itself draws nothing from them, but a judge or a library may; without this, a run that
    is killed before its first checkpoint would then begin anew with other draws.
    """
    drawn = derive_seed(seed, "global generators")
    random.seed(drawn)
    np.random.seed(drawn % 2**32)
    torch.manual_seed(drawn)


def rng_state() -> dict[str, Any]:
    """Return the state of the global random generators of Python, numpy and torch."""
    numpy: Any = np.random.get_state(legacy=False)
    return {
        "python": random.getstate(),
        "numpy": {**numpy, "state": {**numpy["state"], "key": numpy["state"]["key"].tolist()}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Restore the global random generators."""
    random.setstate(state["python"])
    numpy = state["numpy"]
    key = np.array(numpy["state"]["key"], dtype=np.uint32)
    np.random.set_state({**numpy, "state": {**numpy["state"], "key": key}})
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


def remove_leftovers(folder: Path) -> None:
    """Delete checkpoints that a killed run left half written or half deleted.

    One that it had set aside for another of its step is put back, where that is not in place.
    """
    if not folder.is_dir():
        return
    for path in [*folder.glob(f".step-*.{ASIDE}-*")]:
        final = path.with_name(path.name.removeprefix(".").split(".")[0])
        if not final.exists():
            path.rename(final)
    for path in [*folder.glob(".step-*")]:
        shutil.rmtree(path, ignore_errors=True)


def _write(folder: Path, checkpoint: RunCheckpoint) -> None:
    header = adapter_header(checkpoint.recipe)
    _write_tensors(folder / ADAPTER_FILE, checkpoint.adapter, header)
    if checkpoint.ema is not None:
        _write_tensors(folder / EMA_FILE, checkpoint.ema, header)
    for name, value in ((OPTIMISER_FILE, checkpoint.optimiser), (RNG_FILE, checkpoint.rng)):
        with (folder / name).open("wb") as file:
            torch.save(dict(value), file)
            file.flush()
            os.fsync(file.fileno())
    state = {
        "step": checkpoint.step,
        "position": checkpoint.position,
        "bad_steps": checkpoint.bad_steps,
        "bad_in_a_row": checkpoint.bad_in_a_row,
        "ema_updates": checkpoint.ema_updates,
        "has_ema": checkpoint.ema is not None,
        "recipe": dict(checkpoint.recipe),
        "fingerprints": dict(checkpoint.fingerprints),
        "versions": dict(checkpoint.versions),
        "idle_steps": checkpoint.idle_steps,
        "reward_window": list(checkpoint.reward_window),
        "files": {path.name: file_sha256(path) for path in sorted(folder.iterdir())},
    }
    if checkpoint.left is not None:
        state["left"] = dict(checkpoint.left)
    state["sha256"] = state_sha256(state)
    with (folder / STATE_FILE).open("w", encoding="utf-8") as file:
        json.dump(state, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(folder)


def state_sha256(state: Mapping[str, Any]) -> str:
    """Hash the content of a checkpoint's state.json, without its own checksum."""
    return text_sha256(json.dumps(state, sort_keys=True))


def _check(path: Path, state: dict[str, Any]) -> None:
    """Compare the files with their checksums, and remove these from the state.

    Raises:
        ValueError: A file differs from what was written.
    """
    if state.pop("sha256") != state_sha256(state):
        raise ValueError(f"{STATE_FILE}: its content does not fit its checksum")
    for name, expected in state.pop("files").items():
        if file_sha256(path / name) != expected:
            raise ValueError(f"{name}: its content does not fit its checksum")


def adapter_header(recipe: Mapping[str, Any]) -> dict[str, str]:
    """Return the header of an adapter's file: rank and alpha, which decide its scale."""
    lora = recipe.get("lora")
    if not isinstance(lora, Mapping):
        return {}  # every weight is trained
    config = {"lora_alpha": lora.get("alpha"), "r": lora.get("rank")}
    return {CONFIG_IN_HEADER: json.dumps(config)}


def _write_tensors(path: Path, tensors: Mapping[str, Tensor], header: dict[str, str]) -> None:
    content = safetensors_bytes(
        {k: t.detach().cpu().contiguous() for k, t in tensors.items()}, header
    )
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _delete(path: Path) -> None:
    """Delete a checkpoint; rename it first, so that no half of it is ever taken for a whole."""
    doomed = temporary_path(path, "old")
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows cannot open a folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
