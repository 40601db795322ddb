"""Posteriors of the VAE on disk, so that a part of a clip is encoded only once.

One safetensors file for each part of a clip at each size, named by a hash of everything its content
depends on. Several runs may share a folder.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from reward_tuning.files.atomic_write import ANOTHER_PLACE, atomic_write
from reward_tuning.files.hashes import tensor_sha256, text_sha256

logger = logging.getLogger(__name__)

NAME = "moments"


class PosteriorCache:
    """Means and log-variances by what they were made of.

    Args:
        folder: Folder of the files, created when first written to; None keeps nothing.
        fingerprint: Hash of the VAE's weights, and its dtype.

    Attributes:
        hits: Number of posteriors read.
        misses: Number of posteriors computed.
    """

    def __init__(self, folder: str | Path | None, fingerprint: str) -> None:
        self._folder = None if folder is None else Path(folder)
        self._fingerprint = fingerprint
        self.hits = self.misses = 0

    def get(self, identity: Callable[[], list[object]], compute: Callable[[], Tensor]) -> Tensor:
        """Return the moments `(32, t, h/8, w/8)` of a part of a clip, float32 on the CPU.

        Args:
            identity: Return everything that decides the pixels.
            compute: Encode them.

        Raises:
            TuningError: The cache cannot be written.
        """
        if self._folder is None:
            return compute().float().cpu()
        key = json.dumps([self._fingerprint, identity()])
        path = self._folder / f"{text_sha256(key)}.safetensors"
        found = _read(path)
        if found is not None:
            self.hits += 1
            return found
        self.misses += 1
        moments = compute().float().cpu().contiguous()
        about = {"sha256": tensor_sha256(moments)}
        atomic_write(path, safetensors.torch.save({NAME: moments}, about), advice=ANOTHER_PLACE)
        return moments


def _read(path: Path) -> Tensor | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            moments: Tensor = file.get_tensor(NAME)
    except (SafetensorError, OSError) as error:
        problem = str(error)
    else:
        if about.get("sha256") == tensor_sha256(moments):
            return moments
        problem = "its content does not match its checksum"
    logger.warning("posterior cache: %s is damaged (%s); encoding again", path, problem)
    return None
