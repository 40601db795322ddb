"""From a judge's name in a recipe to its tensors, without ever running a pickle's code."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rewards.errors import RewardError
from rewards.published import PUBLISHED, PublishedFile, published

SHIPPED = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Checkpoint:
    """A judge's file in memory.

    Attributes:
        path: where it was read from.
        state: tensors by name, on the CPU, in the file's dtypes.
        metadata: what a safetensors file says of itself; empty for the others.
        published: the record of a published file.
    """

    path: Path
    state: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)
    published: PublishedFile | None = None


def shipped_names() -> list[str]:
    """Names of the judges' files inside the package, such as ``tiny/hps.safetensors``."""
    return sorted(p.relative_to(SHIPPED).as_posix() for p in SHIPPED.rglob("*.safetensors"))


def resolve(checkpoint: str | Path, folder: Path | None = None) -> Path:
    """Find a judge's file: shipped name, then path, then published name or hub id in the cache.

    Nothing is downloaded: a judge can be gigabytes, so fetching it is the user's decision.

    Args:
        checkpoint: what the recipe says.
        folder: what a relative path is relative to; the working directory if not given.

    Returns:
        Path of an existing file.

    Raises:
        RewardError: says which file is missing, how large it is, where it comes from and the
            command that fetches it.
    """
    text = str(checkpoint)
    for place in (SHIPPED / text, (folder or Path()) / Path(text).expanduser()):
        if place.is_file():
            return place
    entry = published(text)
    if entry is not None and entry.from_hub:
        found = _in_hub_cache(entry.repo, entry.file)
    elif entry is None and text.count("/") >= 2 and not Path(text).is_absolute():
        org, repo, file = text.split("/", 2)
        found = _in_hub_cache(f"{org}/{repo}", file)
    else:
        found = None
    if found is None:
        raise RewardError(_missing(text, folder, entry))
    return found


def load_checkpoint(checkpoint: str | Path, folder: Path | None = None) -> Checkpoint:
    """Resolve and read a judge's file.

    Reads ``.safetensors``, plain state dicts and HPS's ``{"state_dict": ...}`` in torch's format,
    with ``weights_only=True``. A published file is checked for its size and hash first.

    Raises:
        RewardError: the file is missing, cut off, changed, or holds more than tensors.
    """
    path = resolve(checkpoint, folder)
    entry = published(str(checkpoint)) or published(path.name)
    if entry is not None:
        verify(path, entry)
    if path.suffix == ".safetensors":
        state, metadata = _read_safetensors(path)
    else:
        state, metadata = _read_torch(path), {}
    return Checkpoint(path, state, metadata, entry)


def verify(path: Path, entry: PublishedFile) -> None:
    """Compare a file with the size and the hash that its publisher's file has.

    Raises:
        RewardError: they differ.
    """
    size = path.stat().st_size
    if entry.size is not None and size != entry.size:
        raise RewardError(
            f"{path} has {size:,} bytes, the published {entry.file} has {entry.size:,}: the "
            f"download was cut off or the file is another one. Fetch it again: {entry.fetch}"
        )
    for name, expected in (("sha256", entry.sha256), ("md5", entry.md5)):
        if expected is None:
            continue
        with path.open("rb") as file:
            # md5 finds a damaged file; against a forged one only sha256 helps.
            digest = hashlib.new(name, usedforsecurity=False)
            while block := file.read(1 << 22):
                digest.update(block)
        if digest.hexdigest() != expected:
            raise RewardError(
                f"{path} has the {name} {digest.hexdigest()}, the published {entry.file} has "
                f"{expected}. Fetch it again ({entry.fetch}), or rename it if it is your own."
            )


def check_keys(
    expected: Mapping[str, torch.Size], state: Mapping[str, Tensor], what: str, path: Path
) -> None:
    """Compare names and shapes before loading, so that the refusal names them.

    Args:
        expected: shape by name.
        state: the file's tensors.
        what: the architecture, for the message.
        path: the file, for the message.

    Raises:
        RewardError: a name is missing, unknown, or has another shape.
    """
    problems = []
    if missing := sorted(set(expected) - set(state)):
        problems.append(f"{len(missing)} missing: {_some(missing)}")
    if unknown := sorted(set(state) - set(expected)):
        problems.append(f"{len(unknown)} unknown: {_some(unknown)}")
    shapes = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(shape)}"
        for name, shape in expected.items()
        if name in state and state[name].shape != shape
    ]
    if shapes:
        problems.append(f"{len(shapes)} of another shape: {_some(shapes)}")
    if problems:
        raise RewardError(
            f"{path} does not fit {what}: {'; '.join(problems)}. Check that the file belongs to "
            "this kind of judge and to this architecture."
        )


def _some(names: Iterable[str], count: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _in_hub_cache(repo: str, file: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repo, file)
    except HFValidationError:  # not a repository's name at all: a path with a typing mistake
        return None
    return Path(found) if isinstance(found, str) else None


def _missing(text: str, folder: Path | None, entry: PublishedFile | None) -> str:
    place = (folder or Path()).absolute()
    if entry is not None:
        return (
            f"judge {text!r} is not on this machine: it needs {entry.file} ({entry.about}) from "
            f"{entry.repo}. Fetch it with: {entry.fetch}  - or write the path of your copy as "
            "the checkpoint."
        )
    hub = ""
    if text.count("/") >= 2 and not Path(text).is_absolute():
        org, repo, file = text.split("/", 2)
        hub = f" If it is a hub id, fetch it with: hf download {org}/{repo} {file}"
    return (
        f"judge checkpoint {text!r} does not exist: it is no shipped name "
        f"({', '.join(shipped_names()) or 'none shipped'}), no file under {place}, and no "
        f"published name ({', '.join(e.name for e in PUBLISHED)}).{hub}"
    )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return state, dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise RewardError(_damaged(path, error)) from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RewardError(
            f"{path} holds more than tensors, or is no torch file ({str(error).splitlines()[0]}). "
            "Such a file can run code when it is loaded and is refused; ask its author for "
            "a state dict, or fetch it again if it was cut off."
        ) from error
    except (RuntimeError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise RewardError(_damaged(path, error)) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not loaded:
        raise RewardError(f"{path} holds a {type(loaded).__name__} instead of named tensors.")
    if others := [str(k) for k, v in loaded.items() if not isinstance(v, Tensor)]:
        raise RewardError(f"{path} holds more than tensors: {_some(others)}.")
    return dict(loaded)


def _damaged(path: Path, error: Exception) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return (
        f"cannot read {path} ({path.stat().st_size:,} bytes): {reason}. The file is cut off or "
        "damaged; fetch or make it again."
    )
