"""The files of a training set: their length and size, and every k-th frame of a part."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from reward_tuning.files.clips import clip_frames, probe_clip
from reward_tuning.files.pictures import read_picture
from reward_tuning.finetune.metadata import ClipKind


@dataclass(frozen=True)
class ClipInfo:
    """Length and size of a file.

    Attributes:
        frames: Number of frames it stores; 1 for a picture.
        height: Height in pixels.
        width: Width in pixels.
    """

    frames: int
    height: int
    width: int


def probe(path: Path, kind: ClipKind) -> ClipInfo:
    """Count the frames of a file and read its size, by decoding it once.

    The header is not trusted: it states frames that a truncated file does not have.

    Raises:
        TuningError: The file is missing, damaged, truncated, or not of this kind.
    """
    if kind == "image":
        _, height, width = read_picture(path).shape
        return ClipInfo(1, height, width)
    found = probe_clip(path)
    return ClipInfo(found.frames, found.height, found.width)


def read_part(path: Path, kind: ClipKind, start: int, count: int, stride: int) -> Tensor:
    """Read `count` frames, every `stride`-th from `start` on; a picture is a clip of one.

    Frames are counted as in `clip_frames`: by number, not by time.

    Returns:
        `(count, 3, H, W)` float32 in [0, 1], at the file's own size.

    Raises:
        TuningError: The file is missing, damaged, or shorter than when it was checked.
    """
    if kind == "image":
        return read_picture(path)[None]
    return torch.stack(list(clip_frames(path, range(start, start + count * stride, stride))))
