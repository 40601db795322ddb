"""Delta checkpoints: a transformer stored as its difference from another, in half the bytes.

The folder `transformer/` holds `config.json` and `delta.safetensors`. The metadata name the base (a
shipped checkpoint) and the hash of its transformer. A tensor `NAME` of the result is

    base[NAME] + scale[NAME] * int8[NAME]     matrices; one scale per row
    base[NAME] + add[NAME]                    vectors
    whole[NAME]                               tensors whose shape differs from the base's

rounded to the dtype of the base's file. All other parts come from the base.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from base_model.errors import GeneratorError
from base_model.files.cache_folder import made_once
from base_model.files.reproducible import save_reproducibly
from base_model.files.weight_files import find_weights, read_json
from base_model.loading.config_conversion import model_index

DELTA_FILE = "delta.safetensors"
WEIGHT_FILE = "diffusion_pytorch_model.safetensors"
OTHER_PARTS = ("vae", "text_encoder", "tokenizer", "scheduler")
LEVELS = 127
"""Integer that stands for the largest difference in a row."""


def is_delta(folder: Path) -> bool:
    """Return whether a checkpoint folder holds a delta."""
    return (folder / "transformer" / DELTA_FILE).is_file()


def write_delta(
    folder: Path,
    state: Mapping[str, Tensor],
    base: Path,
    *,
    name: str,
    about: Mapping[str, str],
) -> None:
    """Write the delta of a transformer; the caller writes its `config.json`.

    Args:
        folder: Folder of the delta checkpoint.
        state: Weights of the transformer, by diffusers' names.
        base: Folder of the base checkpoint, in the diffusers layout.
        name: Shipped name of the base.
        about: Further metadata: the `command` that made the weights, a `description`.
    """
    old = _weights(base)
    delta: dict[str, Tensor] = {}
    for key, tensor in state.items():
        new = tensor.detach().float()
        if key not in old or old[key].shape != new.shape:
            delta[f"whole.{key}"] = tensor.to(torch.bfloat16)
            continue
        difference = new - old[key].float()
        if difference.ndim < 2:
            delta[f"add.{key}"] = difference.to(torch.bfloat16)
            continue
        rows = difference.flatten(1)
        scale = rows.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / LEVELS
        delta[f"scale.{key}"] = scale[:, 0]
        delta[f"int8.{key}"] = (rows / scale).round().to(torch.int8).reshape(difference.shape)
    part = folder / "transformer"
    part.mkdir(parents=True, exist_ok=True)
    metadata = {**about, "base": name, "base_sha256": _hash(base)}
    save_reproducibly(part / DELTA_FILE, delta, metadata)


def assembled(folder: Path, base: Path) -> Path:
    """Assemble the complete checkpoint of a delta in the cache, or find it there.

    Args:
        folder: Folder of the delta.
        base: Folder of the base checkpoint.

    Returns:
        A folder in the diffusers layout.

    Raises:
        GeneratorError: The delta is damaged or was made from another base, or the cache cannot be
            written.
    """
    path = folder / "transformer" / DELTA_FILE

    def fill(target: Path) -> None:
        state, dtype = _applied(path, base)
        part = target / "transformer"
        part.mkdir()
        shutil.copyfile(folder / "transformer" / "config.json", part / "config.json")
        channels = read_json(part / "config.json").get("in_channels", 0)
        (target / "model_index.json").write_text(model_index(channels))
        whole = {name: tensor.to(dtype) for name, tensor in state.items()}
        save_reproducibly(part / WEIGHT_FILE, whole, {"format": "pt"})
        for name in OTHER_PARTS:
            shutil.copytree(base / name, target / name)

    return made_once(
        f"{folder.name}-{_content(folder, base)[:16]}",
        fill,
        advice=f"The checkpoint {folder.name} is assembled there from the package's files; free "
        "some space, or name another folder in the environment variable REWARD_TUNING_CACHE.",
    )


def base_of(folder: Path) -> str:
    """Return the shipped name of a delta's base.

    Raises:
        GeneratorError: The file is damaged, or does not name a base.
    """
    path = folder / "transformer" / DELTA_FILE
    name = _metadata(path).get("base")
    if name is None:
        raise GeneratorError(f"{path} does not name its base. Install the package again.")
    return name


def _applied(path: Path, base: Path) -> tuple[dict[str, Tensor], torch.dtype]:
    """Return the complete weights in float32, and the dtype of the base."""
    metadata = _metadata(path)
    if metadata.get("base_sha256") != _hash(base):
        raise GeneratorError(
            f"{path} was made from other weights than those in {base}: its base's transformer has "
            f"sha256 {metadata.get('base_sha256')}, this one {_hash(base)}. Install the package "
            "again, or train the checkpoint again from this base."
        )
    old = _weights(base)
    found: dict[str, Tensor] = {}
    with safe_open(path, "pt") as file:
        for key in file.keys():  # noqa: SIM118 (safe_open is no mapping)
            form, _, name = key.partition(".")
            tensor = file.get_tensor(key)
            match form:
                case "whole":
                    found[name] = tensor.float()
                case "add":
                    found[name] = old[name].float() + tensor.float()
                case "int8":
                    scale = file.get_tensor(f"scale.{name}")
                    rows = tensor.float().flatten(1) * scale[:, None]
                    found[name] = old[name].float() + rows.reshape(tensor.shape)
    return found, next(iter(old.values())).dtype


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise GeneratorError(
            f"{path} cannot be read as safetensors: {error}. It is truncated or damaged: install "
            "the package, or copy the file, again."
        ) from error


def _weights(base: Path) -> dict[str, Tensor]:
    files = find_weights(base / "transformer")
    with files.opened() as read:
        return {name: read(name) for name in files.files}


def _content(folder: Path, base: Path) -> str:
    """Hash of everything that the whole checkpoint is made of."""
    digest = hashlib.sha256()
    for root, parts in ((folder, ("transformer",)), (base, ("transformer", *OTHER_PARTS))):
        for path in sorted(file for part in parts for file in (root / part).rglob("*")):
            if path.is_file():
                content = path.read_bytes()
                digest.update(f"{path.relative_to(root).as_posix()} {len(content)}\n".encode())
                digest.update(content)
    return digest.hexdigest()


def _hash(base: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(set(find_weights(base / "transformer").files.values())):
        digest.update(path.read_bytes())
    return digest.hexdigest()
