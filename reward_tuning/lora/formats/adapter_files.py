"""Find and read the file with an adapter's tensors, and the one that stores its strength."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reward_tuning.errors import TuningError, short_repr
from reward_tuning.lora.formats.adapter_config import (
    Strength,
    checked_alpha,
    checked_rank,
    read_config,
)
from reward_tuning.lora.formats.tensor_file import check_is_file, read_header, read_tensors
from reward_tuning.lora.names import CONFIG_IN_HEADER, DIFFUSERS_PREFIX

CONFIG = "adapter_config.json"
PEFT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
# diffusers looks for this name in a folder.
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
ADAPTER_FILE, EMA_FILE, STATE_FILE = "adapter.safetensors", "ema.safetensors", "state.json"
"""Files of a run's checkpoint that an adapter is read from."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
ORIGINAL_ALPHA = "original_alpha"
"""Our header entry for the alpha of an adapter whose up factors are multiplied by alpha / rank."""


@dataclass(frozen=True)
class AdapterFile:
    """The files of an adapter.

    Attributes:
        weights: File with the tensors.
        config: peft's config next to it, or a checkpoint's `state.json`; None for neither.
    """

    weights: Path
    config: Path | None = None


@dataclass(frozen=True)
class ReadAdapter:
    """The content of an adapter's files.

    Attributes:
        tensors: Tensors by key, on the CPU.
        strength: Strength in its config; None without a config.
        folded: Alpha of the adapter before alpha / rank was multiplied into its up factors; None if
            it was not.
    """

    tensors: Mapping[str, Tensor]
    strength: Strength | None
    folded: float | None = None


def find_adapter(path: Path) -> AdapterFile:
    """Find the file with an adapter's tensors and the one with its strength.

    Args:
        path: File; or folder of peft, of diffusers, of a run's checkpoint, or with one LoRA in it.

    Raises:
        TuningError: There is no adapter, or more than one.
    """
    if not path.is_dir():
        check_is_file(path)
        return _with_config(path)
    if (path / CONFIG).is_file():
        for name in PEFT_FILES:
            if (path / name).is_file():
                return AdapterFile(path / name, path / CONFIG)
        raise TuningError(
            f"{path}: has {CONFIG} but neither {' nor '.join(PEFT_FILES)}; copy the whole folder"
        )
    if (path / DIFFUSERS_FILE).is_file():
        return AdapterFile(path / DIFFUSERS_FILE)
    if (path / STATE_FILE).is_file() and (path / EMA_FILE).is_file():
        raise TuningError(
            f"{path} is a checkpoint with two adapters; name its {EMA_FILE} (the average, which a "
            f"run exports) or its {ADAPTER_FILE} (as trained)"
        )
    if (path / STATE_FILE).is_file() and (path / ADAPTER_FILE).is_file():
        return _with_config(path / ADAPTER_FILE)
    inside = [one.parent for one in path.glob(f"*/{CONFIG}")]
    if len(inside) == 1:  # peft saves a named adapter in a folder of that name
        return find_adapter(inside[0])
    suffixes = (".safetensors", *PICKLES)
    found = sorted(one for one in path.iterdir() if one.suffix in suffixes and one.is_file())
    if len(found) == 1:
        return _with_config(found[0])
    what = (
        f"{len(found)} candidate files ({', '.join(one.name for one in found[:3])}…)"
        if found
        else f"neither {CONFIG} (peft) nor {DIFFUSERS_FILE} (diffusers), and no LoRA file"
    )
    raise TuningError(f"{path}: contains {what}; name the adapter's own folder or file")


def _with_config(weights: Path) -> AdapterFile:
    """Pair a file with the one next to it that stores its strength."""
    if weights.name in PEFT_FILES:
        config = weights.with_name(CONFIG)
    elif weights.name in (ADAPTER_FILE, EMA_FILE):
        config = weights.with_name(STATE_FILE)
    else:
        return AdapterFile(weights)
    return AdapterFile(weights, config)


def read_adapter(file: AdapterFile) -> ReadAdapter:
    """Read the tensors and their strength.

    Raises:
        TuningError: A damaged or foreign file, or one whose alpha is unknown.
    """
    metadata: dict[str, str] = {}
    if _is_pickle(file.weights):
        tensors = _read_pickle(file.weights)
    else:
        tensors, metadata = read_tensors(file.weights)
    where = str(file.weights)
    strength = folded = None
    if CONFIG_IN_HEADER in metadata:
        header = f"{where}, {CONFIG_IN_HEADER} in its header"
        strength = read_config(metadata[CONFIG_IN_HEADER], header, prefix=DIFFUSERS_PREFIX)
        if ORIGINAL_ALPHA in metadata:
            text = metadata[ORIGINAL_ALPHA]
            folded = checked_alpha(_number(text), f"{where}, {ORIGINAL_ALPHA} in its header")
    elif file.config is not None and file.config.is_file():
        strength = (
            _checkpoint_strength(file.config)
            if file.config.name == STATE_FILE
            else read_config(_text(file.config), str(file.config))
        )
    elif file.config is not None and not any(key.endswith(".alpha") for key in tensors):
        raise TuningError(
            f"{where}: its alpha is in {file.config.name}, which is missing; copy that file to "
            "the same folder. (Under another name this file is read with alpha = rank.)"
        )
    return ReadAdapter(tensors, strength, folded)


def header_of(file: AdapterFile) -> dict[str, str]:
    """Return the metadata in the header of an adapter's file; a pickle has none.

    Raises:
        TuningError: The file is not a complete safetensors file.
    """
    return {} if _is_pickle(file.weights) else read_header(file.weights)


def _checkpoint_strength(path: Path) -> Strength:
    """Read the rank and alpha of a run from its checkpoint's state."""
    try:
        lora = json.loads(_text(path))["recipe"]["lora"]
        rank, alpha = lora["rank"], lora["alpha"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TuningError(
            f"{path}: does not give the run's lora.rank and lora.alpha, so the adapter's strength "
            "is unknown; name the run's folder"
        ) from error
    return Strength(
        checked_rank(rank, f"{path}: lora.rank"), checked_alpha(alpha, f"{path}: lora.alpha")
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise TuningError(
            f"{path} cannot be read: {short_repr(str(error))}; export the adapter again"
        ) from error


def _number(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


def _is_pickle(path: Path) -> bool:
    """Return whether a file is a pickle, by content: suffixes of LoRA files are unreliable."""
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":
        return False
    return start[:2] == b"PK" or start[:1] == b"\x80" or path.suffix in PICKLES


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """Read a file of `torch.save` without running code in it."""
    try:
        with path.open("rb") as file:  # given a path, torch chooses the format by suffix
            found: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a pickle is a program: a damaged one may raise anything
        raise TuningError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read by torch.load with "
            f"weights_only ({short_repr(str(error).partition('. ')[0])}): it is truncated, of "
            "another format, or has more than tensors; save it as .safetensors where it was made"
        ) from error
    return _only_tensors(found, path)


def _only_tensors(found: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(found, Mapping):
        raise TuningError(f"{path}: contains a {type(found).__name__}; expected tensors by name")
    inner = [one for one in found.values() if isinstance(one, Mapping) and one]
    if len(inner) == 1 and not any(isinstance(one, Tensor) for one in found.values()):
        found = inner[0]  # such as {"state_dict": {...}, "epoch": 3}
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise TuningError(
                f"{path}: {short_repr(key)} is a {type(value).__name__}, not a tensor; save only "
                "the LoRA's tensors"
            )
    return {key: value.detach() for key, value in found.items()}
