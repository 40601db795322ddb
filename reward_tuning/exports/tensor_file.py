"""Safetensors files and folders: reproducible bytes, written atomically, read with clear errors."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from reward_tuning.errors import TuningError


def write_atomically(path: Path, content: bytes) -> None:
    """Write under a temporary name and rename: the file is there whole, or as it was before.

    Raises:
        TuningError: the disk is full, or the folder cannot be written.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _not_written(path, error) from error


def write_folder_atomically(folder: Path, files: Mapping[str, bytes], *, marker: str) -> None:
    """Write a folder under a temporary name and rename it.

    Args:
        folder: where it goes; a folder that holds `marker` is replaced, any other is left alone.
        files: content by file name.
        marker: the file name by which a former export is known.

    Raises:
        TuningError: the place is taken by something else, or cannot be written.
    """
    replaces = folder.exists()
    if replaces and not (folder / marker).is_file() and not _is_empty_folder(folder):
        raise TuningError(
            f"{folder} exists and is no earlier export (it has no {marker}); choose another name "
            "or remove it yourself"
        )
    temporary, old = _temporary(folder), _temporary(folder, "old")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        for name, content in files.items():
            write_atomically(temporary / name, content)
        if replaces:
            folder.rename(old)
        try:
            temporary.rename(folder)
        except OSError:
            if replaces:
                old.rename(folder)
            raise
    except OSError as error:
        raise _not_written(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if replaces:
        shutil.rmtree(old, ignore_errors=True)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file, on the CPU.

    Raises:
        TuningError: no such file, or not a whole safetensors file.
    """
    with _open(path) as file:
        return {k: file.get_tensor(k) for k in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def read_names(path: Path) -> list[str]:
    """Names of the tensors of a safetensors file, without reading them; errors as above."""
    with _open(path) as file:
        return list(file.keys())


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise TuningError(f"{path}: no such file; check the path of the adapter")
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise TuningError(
            f"{path} ({path.stat().st_size:,} bytes) is no whole safetensors file: {error}. It is "
            "truncated or of another kind; export or copy it again"
        ) from error


def _temporary(path: Path, kind: str = "tmp") -> Path:
    return path.with_name(f".{path.name}.{kind}-{os.getpid()}")


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _not_written(path: Path, error: OSError) -> TuningError:
    return TuningError(
        f"{path} could not be written: {error.strerror or error}. What was there before is "
        "unchanged; free some space or choose another place, and export again"
    )
