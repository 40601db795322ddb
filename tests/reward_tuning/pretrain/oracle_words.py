"""What the oracle reads in a clip, read once a clip: judges whose answers are known use it."""

from functools import cache

import torch
from torch import Tensor

from base_model.tiny.oracle import recognise_clip


def words_in(clip: Tensor) -> dict[str, str]:
    """Word of each attribute in a clip `(f, 3, H, W)`."""
    return _read(clip.contiguous().numpy().tobytes(), tuple(clip.shape))


@cache
def _read(content: bytes, shape: tuple[int, ...]) -> dict[str, str]:
    clip = torch.frombuffer(bytearray(content), dtype=torch.float32).view(shape)
    return dict(recognise_clip(clip).words)
