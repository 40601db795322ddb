"""Write export folders atomically, and read safetensors files with clear errors."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from reward_tuning.errors import TuningError, short_repr
from reward_tuning.files.atomic_write import (
    EXPORT_AGAIN,
    atomic_write,
    not_written,
    temporary_path,
)


def write_folder_atomically(folder: Path, files: Mapping[str, bytes], *, marker: str) -> None:
    """Write a folder under a temporary name and rename it.

    Args:
        folder: Target; a folder that contains `marker` is replaced, any other is left alone.
        files: Content by file name.
        marker: Name of the file that identifies an earlier export.

    Raises:
        TuningError: The target is something else, or cannot be written.
    """
    replaces = folder.exists()
    if replaces and not (folder / marker).is_file() and not _is_empty_folder(folder):
        raise TuningError(
            f"{folder} exists and is not an earlier export (it has no {marker}); choose another "
            "name, or remove it yourself"
        )
    temporary, old = temporary_path(folder), temporary_path(folder, "old")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        for name, content in files.items():
            atomic_write(temporary / name, content, advice=EXPORT_AGAIN)
        if replaces:
            folder.rename(old)
        try:
            temporary.rename(folder)
        except OSError:
            if replaces:
                old.rename(folder)
            raise
    except OSError as error:
        raise not_written(folder, error, advice=EXPORT_AGAIN) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if replaces:
        shutil.rmtree(old, ignore_errors=True)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors, on the CPU, and the metadata of a safetensors file.

    Raises:
        TuningError: The file does not exist, or is not a complete safetensors file.
    """
    with _open(path) as file:
        return {k: file.get_tensor(k) for k in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def read_header(path: Path) -> dict[str, str]:
    """Read the metadata of a safetensors file.

    Raises:
        TuningError: As `read_tensors`.
    """
    with _open(path) as file:
        return dict(file.metadata() or {})


def check_is_file(path: Path) -> None:
    """Refuse a path that is not a file.

    Raises:
        TuningError: There is no such file.
    """
    if not path.is_file():
        raise TuningError(f"{path}: no such file; check the path of the adapter")


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    check_is_file(path)
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise TuningError(
            f"{path} ({path.stat().st_size:,} bytes) is not a complete safetensors file: "
            f"{short_repr(str(error))}. It is "
            "truncated or of another format; export or copy it again"
        ) from error


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
