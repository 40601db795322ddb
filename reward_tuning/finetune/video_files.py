"""Clips of a training set, decoded by ffmpeg: how long they are, and every k-th frame of a part.

ffmpeg itself picks the frames, by their numbers and not by time, so that only those wanted go
through the pipe and a variable frame rate repeats none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.finetune.metadata import ClipKind
from reward_tuning.frame_files import read_picture

UNREADABLE = (OSError, RuntimeError, ValueError, AssertionError)
"""What imageio-ffmpeg raises on files that are damaged or something else."""


@dataclass(frozen=True)
class ClipInfo:
    """What a file holds.

    Attributes:
        frames: Frames that can be decoded; 1 of a picture.
        height: Pixels.
        width: Pixels.
    """

    frames: int
    height: int
    width: int


def look_at(path: Path, kind: ClipKind) -> ClipInfo:
    """Count the frames of a file, by decoding it once, and read its size.

    Raises:
        TuningError: It is missing, damaged, or not of this kind.
    """
    if kind == "image":
        _, height, width = read_picture(path).shape
        return ClipInfo(1, height, width)
    if not path.is_file():
        raise TuningError(f"clip {path}: no such file")
    try:
        frames, _ = imageio_ffmpeg.count_frames_and_secs(str(path))
        reader = imageio_ffmpeg.read_frames(str(path))
        width, height = next(reader)["size"]
        reader.close()
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    if not frames:
        raise TuningError(f"clip {path}: no frame in it can be decoded")
    return ClipInfo(frames, height, width)


def read_part(path: Path, kind: ClipKind, start: int, count: int, stride: int) -> Tensor:
    """Read `count` frames, every `stride`-th from `start` on; a picture is a clip of one.

    Returns:
        `(count, 3, H, W)` float32 in [0, 1], at the file's own size.

    Raises:
        TuningError: The file is missing, damaged, or shorter than it was when looked at.
    """
    if kind == "image":
        return read_picture(path)[None]
    last = start + (count - 1) * stride
    picked = f"select='between(n\\,{start}\\,{last})*not(mod(n-{start}\\,{stride}))'"
    # Numbered anew, so that no frame is repeated or dropped to keep a rate.
    filters = f"{picked},setpts=N/(FRAME_RATE*TB)"
    try:
        reader: Any = imageio_ffmpeg.read_frames(
            str(path), output_params=["-vf", filters, "-frames:v", str(count)]
        )
        width, height = next(reader)["size"]
        frames = [np.frombuffer(frame, np.uint8) for frame in reader]
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    if len(frames) != count:
        raise TuningError(
            f"clip {path}: {len(frames)} frames from {start} on at a stride of {stride}, {count} "
            "were there when the run began; put the file back, or take its row out"
        )
    video = torch.from_numpy(np.stack(frames)).view(count, height, width, 3)
    return video.permute(0, 3, 1, 2).float() / 255


def _unreadable(path: Path, error: Exception) -> TuningError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else type(error).__name__
    return TuningError(f"clip {path}: not a video that can be read ({reason})")
