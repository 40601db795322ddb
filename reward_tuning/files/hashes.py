"""SHA-256 of texts, tensors and files, as hexadecimal digits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from reward_tuning.errors import TuningError

_BLOCK = 2**20  # bytes read at a time: a checkpoint never lies in memory as a whole
SAMPLE_BYTES = 2**16  # read at each place of a large file, whose whole hash takes minutes


def text_sha256(text: str) -> str:
    """Return the hash of a text as UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def tensor_sha256(tensor: Tensor) -> str:
    """Return the hash of a CPU tensor's bytes; its shape and dtype are not part of it."""
    data = tensor.contiguous().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the hash of a file.

    Raises:
        TuningError: The file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise TuningError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def sampled_bytes(path: Path, *, whole: int, samples: int) -> Iterator[bytes]:
    """Read what stands for a file's content in a fingerprint: large files only in samples.

    Args:
        path: File to read.
        whole: Size in bytes up to which the whole content is read.
        samples: Number of samples of a larger file, `SAMPLE_BYTES` each, evenly spread, its first
            and last bytes included.

    Raises:
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= whole:
            yield file.read()
            return
        for i in range(samples):
            file.seek((size - SAMPLE_BYTES) * i // (samples - 1))
            yield file.read(SAMPLE_BYTES)
