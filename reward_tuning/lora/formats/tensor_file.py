"""Safetensors files and folders: reproducible bytes, written atomically, read with clear errors."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.files.atomic_write import (
    EXPORT_AGAIN,
    atomic_write,
    not_written,
    temporary_path,
)
from reward_tuning.lora.formats.shown import shown


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
    """Tensors and metadata of a safetensors file, on the CPU.

    Raises:
        TuningError: no such file, or not a whole safetensors file.
    """
    with _open(path) as file:
        return {k: file.get_tensor(k) for k in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def check_is_file(path: Path) -> None:
    """Refuse a path that is none.

    Raises:
        TuningError: no such file.
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
            f"{shown(str(error))}. It is "
            "truncated or of another kind; export or copy it again"
        ) from error


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
