"""Read a judge's file without ever running a pickle's code, and check it before it is used."""

from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rewards.core.json_text import json_object
from rewards.core.locate import resolve_file
from rewards.core.published import PublishedFile, published
from rewards.errors import RewardError

Architecture = TypeVar("Architecture", bound=Mapping[str, Any])


UNPICKLED = (
    RuntimeError,
    EOFError,
    OSError,
    zipfile.BadZipFile,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
)
"""Errors that torch's own unpickler, which runs no code, raises on damaged bytes."""


@dataclass(frozen=True)
class WeightFile:
    """A judge's file in memory.

    Attributes:
        path: Path that it was read from.
        state: Tensors by name, on the CPU, in the file's dtypes.
        metadata: Metadata of a safetensors file; empty for other formats.
        published: Record of a published file.
    """

    path: Path
    state: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)
    published: PublishedFile | None = None


def load_weights(checkpoint: str | Path, folder: Path | None = None) -> WeightFile:
    """Resolve and read a judge's file.

    Reads `.safetensors`, plain state dicts and HPS's `{"state_dict": ...}` in torch's format,
    with `weights_only=True`. A published file is checked for its size and hash first.

    Raises:
        RewardError: The file is missing, truncated, changed, or contains more than tensors.
    """
    path = resolve_file(checkpoint, folder)
    entry = published(str(checkpoint).partition("@")[0]) or published(path.name)
    if entry is not None:
        verify(path, entry)
    if path.suffix == ".safetensors":
        state, metadata = _read_safetensors(path)
    else:
        state, metadata = _read_torch(path), {}
    return WeightFile(path, state, metadata, entry)


def verify(path: Path, entry: PublishedFile) -> None:
    """Compare a file with the recorded size and hash of the published one.

    Raises:
        RewardError: They differ.
    """
    size = path.stat().st_size
    if entry.size is not None and size != entry.size:
        raise RewardError(
            f"{path} has {size:,} bytes, the published {entry.file} has {entry.size:,}: the "
            "download was interrupted or the file is a different one. Fetch it again: "
            f"{entry.fetch}"
        )
    for name, expected in (("sha256", entry.sha256), ("md5", entry.md5)):
        if expected is not None and (found := file_hash(path, name)) != expected:
            raise RewardError(
                f"{path} has the {name} {found}, the published {entry.file} has {expected}. Fetch "
                f"it again ({entry.fetch}), or rename it if it is your own"
            )


def verify_sha256(path: Path, expected: str) -> None:
    """Compare a file with the hash in a recipe.

    Raises:
        RewardError: They differ.
    """
    if (found := file_hash(path, "sha256")) != expected.lower():
        raise RewardError(
            f"{path} has the sha256 {found}, the recipe expects {expected.lower()}: the file has "
            "changed or is a different one. Get the right one, or correct the judge's sha256"
        )


def file_hash(path: Path, name: str) -> str:
    """Return the hexadecimal digits of a file's hash, read in blocks of 4 MB.

    Args:
        path: Path of the file.
        name: `sha256`; or `md5`, which detects damage but not forgery.
    """
    digest = hashlib.new(name, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def find_fields(
    checkpoint: WeightFile,
    given: Architecture | str | None,
    published: Architecture,
    check: Callable[[Mapping[str, Any], str], Architecture],
    what: str,
) -> Architecture:
    """Return the architecture of a file, by fields: its own, else the given, else the published.

    Args:
        checkpoint: The file.
        given: Fields from the caller; a name is refused.
        published: Architecture of the published file, which does not state it.
        check: Function that refuses missing or unknown fields and names their origin.
        what: Name of the judge, for the message.

    Raises:
        RewardError: It is incomplete, or a name is given instead of fields.
    """
    inside = checkpoint.metadata.get("architecture")
    if inside is not None:
        return check(
            json_object(inside, f"the architecture in {checkpoint.path}"), str(checkpoint.path)
        )
    if given is None:
        return published
    if not isinstance(given, Mapping):
        raise RewardError(
            f"{what} got the architecture {given!r}, but its architectures have no names. Remove "
            "it for the published file, or give the fields of every part"
        )
    return check(given, "the caller")


def check_keys(
    expected: Mapping[str, torch.Size], state: Mapping[str, Tensor], what: str, path: Path
) -> None:
    """Compare names and shapes before loading, so that the message lists them.

    Args:
        expected: Expected shapes by name.
        state: Tensors of the file.
        what: Name of the architecture, for the message.
        path: Path of the file, for the message.

    Raises:
        RewardError: A name is missing or unknown, or a tensor has another shape, contains NaN,
            which would make every score NaN, or has one byte per value: it is quantised, and its
            scales are not read.
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
    if undefined := [name for name in expected if name in state and _contains_nan(state[name])]:
        problems.append(f"{len(undefined)} contain NaN: {_some(undefined)}")
    packed = [
        f"{name} is {state[name].dtype}"
        for name in expected
        if name in state and state[name].element_size() == 1 and state[name].dtype != torch.bool
    ]
    if packed:
        problems.append(f"{len(packed)} quantised, but weights must be floats: {_some(packed)}")
    if problems:
        raise RewardError(
            f"{path} does not fit {what}: {'; '.join(problems)}. Check that the file belongs to "
            "this kind of judge and to this architecture"
        )


def _contains_nan(tensor: Tensor) -> bool:
    if tensor.is_meta or not tensor.is_floating_point():
        return False
    return bool(tensor.isnan().any())


def _some(names: Iterable[str], count: int = 3) -> str:
    names = list(names)
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


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
        named = re.search(r"GLOBAL ([\w.]+)", str(error))  # the rest says how to disable it
        what = f"it calls {named[1]}" if named else str(error).splitlines()[0][:100]
        raise RewardError(
            f"{path} contains more than tensors, or is not a torch file ({what}). Such a file can "
            "run code when it is loaded, so it is refused; ask its author for a state dict, or "
            "fetch it again if it is truncated"
        ) from error
    except UNPICKLED as error:
        raise RewardError(_damaged(path, error)) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not loaded:
        raise RewardError(f"{path} contains a {type(loaded).__name__} instead of named tensors")
    if numbers := [repr(k) for k in loaded if not isinstance(k, str)]:
        raise RewardError(f"{path} contains tensors without names: {_some(numbers)}")
    if others := [str(k) for k, v in loaded.items() if not isinstance(v, Tensor)]:
        raise RewardError(f"{path} contains more than tensors: {_some(others)}")
    return dict(loaded)


def _damaged(path: Path, error: Exception) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return (
        f"cannot read {path} ({path.stat().st_size:,} bytes): {reason}. The file is truncated or "
        "damaged; fetch or make it again"
    )
