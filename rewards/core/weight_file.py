"""A judge's file: read without ever running a pickle's code, and checked before it is used."""

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
from rewards.core.locate import resolve
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
"""What torch's own unpickler, which runs no code, raises on bytes that are no pickle."""


@dataclass(frozen=True)
class WeightFile:
    """A judge's file in memory.

    Attributes:
        path: Where it was read from.
        state: Tensors by name, on the CPU, in the file's dtypes.
        metadata: What a safetensors file says of itself; empty for the others.
        published: The record of a published file.
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
        RewardError: The file is missing, cut off, changed, or holds more than tensors.
    """
    path = resolve(checkpoint, folder)
    entry = published(str(checkpoint).partition("@")[0]) or published(path.name)
    if entry is not None:
        verify(path, entry)
    if path.suffix == ".safetensors":
        state, metadata = _read_safetensors(path)
    else:
        state, metadata = _read_torch(path), {}
    return WeightFile(path, state, metadata, entry)


def verify(path: Path, entry: PublishedFile) -> None:
    """Compare a file with the size and the hash that its publisher's file has.

    Raises:
        RewardError: They differ.
    """
    size = path.stat().st_size
    if entry.size is not None and size != entry.size:
        raise RewardError(
            f"{path} has {size:,} bytes, the published {entry.file} has {entry.size:,}: the "
            f"download was cut off or the file is another one. Fetch it again: {entry.fetch}"
        )
    for name, wanted in (("sha256", entry.sha256), ("md5", entry.md5)):
        if wanted is not None and (found := file_hash(path, name)) != wanted:
            raise RewardError(
                f"{path} has the {name} {found}, the published {entry.file} has {wanted}. Fetch it "
                f"again ({entry.fetch}), or rename it if it is your own"
            )


def verify_sha256(path: Path, wanted: str) -> None:
    """Compare a file with the hash that a recipe gives.

    Raises:
        RewardError: They differ.
    """
    if (found := file_hash(path, "sha256")) != wanted.lower():
        raise RewardError(
            f"{path} has the sha256 {found}, the recipe wants {wanted.lower()}: the file changed "
            "or is another one. Get the right one, or correct the judge's sha256"
        )


def file_hash(path: Path, name: str) -> str:
    """Hexadecimal digits of a file's hash, read in blocks of 4 MB.

    Args:
        path: The file.
        name: `sha256`; or `md5`, which finds damage but no forgery.
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
    """The architecture of a file, by fields: its own, else the given, else the published one.

    Args:
        checkpoint: The file.
        given: By the caller; a name is refused.
        published: Of the published file, which does not say.
        check: Refuses fields that are missing or unknown, naming who gave them.
        what: The judge, for the message.

    Raises:
        RewardError: It is not complete, or a name is given instead of fields.
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
            f"{what} got the architecture {given!r}; its architectures have no names. Remove it "
            "for the published checkpoint, or give the fields of every part"
        )
    return check(given, "the caller")


def check_keys(
    expected: Mapping[str, torch.Size], state: Mapping[str, Tensor], what: str, path: Path
) -> None:
    """Compare names and shapes before loading, so that the refusal names them.

    Args:
        expected: Shape by name.
        state: The file's tensors.
        what: The architecture, for the message.
        path: The file, for the message.

    Raises:
        RewardError: A name is missing, unknown, has another shape, holds NaN, which would make
            every score NaN, or holds one byte a value: quantised, and its scales are not read.
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
    if undefined := [name for name in expected if name in state and _holds_nan(state[name])]:
        problems.append(f"{len(undefined)} with NaN in them: {_some(undefined)}")
    packed = [
        f"{name} is {state[name].dtype}"
        for name in expected
        if name in state and state[name].element_size() == 1 and state[name].dtype != torch.bool
    ]
    if packed:
        problems.append(f"{len(packed)} quantised, and weights are floats here: {_some(packed)}")
    if problems:
        raise RewardError(
            f"{path} does not fit {what}: {'; '.join(problems)}. Check that the file belongs to "
            "this kind of judge and to this architecture"
        )


def _holds_nan(tensor: Tensor) -> bool:
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
        named = re.search(r"GLOBAL ([\w.]+)", str(error))  # torch goes on to how to switch this off
        what = f"it calls {named[1]}" if named else str(error).splitlines()[0][:100]
        raise RewardError(
            f"{path} holds more than tensors, or is no torch file ({what}). Such a file can "
            "run code when it is loaded and is refused; ask its author for a state dict, or fetch "
            "it again if it was cut off"
        ) from error
    except UNPICKLED as error:
        raise RewardError(_damaged(path, error)) from error
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not loaded:
        raise RewardError(f"{path} holds a {type(loaded).__name__} instead of named tensors")
    if numbers := [repr(k) for k in loaded if not isinstance(k, str)]:
        raise RewardError(f"{path} holds tensors without names: {_some(numbers)}")
    if others := [str(k) for k, v in loaded.items() if not isinstance(v, Tensor)]:
        raise RewardError(f"{path} holds more than tensors: {_some(others)}")
    return dict(loaded)


def _damaged(path: Path, error: Exception) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return (
        f"cannot read {path} ({path.stat().st_size:,} bytes): {reason}. The file is cut off or "
        "damaged; fetch or make it again."
    )
