"""Frames and masks from files, fitted to a size.

One rule for all: scale without distortion until the frame covers the size, then crop to the centre,
as for the generator's training clips.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from base_model.core.family import FAMILY
from reward_tuning.errors import TuningError
from reward_tuning.files.clips import read_clip
from reward_tuning.files.pictures import PICTURE_SUFFIXES, read_alpha, read_picture

MASK_THRESHOLD = 240 / 255
"""Grey level of a mask from which a pixel is generated, as in the published script."""


def fitted(frames: Tensor, height: int, width: int) -> Tensor:
    """Scale frames until they cover a size, and crop them to it at the centre.

    Args:
        frames: Frames `(f, c, h, w)` in [0, 1].
        height: Height in pixels.
        width: Width in pixels.

    Returns:
        Frames `(f, c, height, width)` in [0, 1], bicubic with antialiasing; unchanged if they have
        the size.
    """
    h, w = frames.shape[2:]
    if (h, w) == (height, width):
        return frames
    scale = max(height / h, width / w)
    covering = (max(height, math.floor(h * scale + 0.5)), max(width, math.floor(w * scale + 0.5)))
    scaled = F.interpolate(frames, covering, mode="bicubic", antialias=True, align_corners=False)
    top, left = (covering[0] - height) // 2, (covering[1] - width) // 2
    return scaled[:, :, top : top + height, left : left + width].clamp(0, 1)


def read_frames(path: str | Path, frames: int, what: str) -> Tensor:
    """Read the first frames of a clip, at its own size.

    Args:
        path: Clip file.
        frames: Number of frames.
        what: Name of the clip in messages, such as `control video`.

    Returns:
        Frames `(frames, 3, H, W)` float32 in [0, 1].

    Raises:
        TuningError: The file is missing, is not a clip, or has fewer frames.
    """
    clip = read_clip(path, lambda count: range(min(count, frames)))
    if len(clip) < frames:
        fits = FAMILY.fitting_frames(len(clip))
        raise TuningError(
            f"{what} {path}: {len(clip)} frames are fewer than the clip's {frames}; give a longer "
            f"one, or generate {fits} frames"
        )
    return clip


def read_mask(
    path: str | Path,
    frames: int,
    size: tuple[int, int],
    video: str | Path,
    notify: Callable[[str], object] = str,
) -> Tensor:
    """Read a mask: a picture for every frame, or a clip.

    In a picture of one colour and a varying alpha channel, the alpha channel is the mask: opaque
    is white.

    Args:
        path: Mask file: white where the video is generated, black where it is kept.
        frames: Number of frames of the clip.
        size: Height and width of the video's own frames.
        video: File of the video, for messages.
        notify: Called with notes on how the file was read.

    Returns:
        Grey levels in [0, 1], `(frames, 1, H, W)`, or `(1, 1, H, W)` for a picture. Apply
        `binary_mask` after `fitted`: thresholding first would leave jagged edges.

    Raises:
        TuningError: The mask cannot be read, has fewer frames than the clip, or another size than
            the video.
    """
    if Path(path).suffix.lower() in PICTURE_SUFFIXES:
        levels = _mask_picture(path, notify)
    else:
        levels = read_frames(path, frames, "mask").mean(dim=1, keepdim=True)
    if tuple(levels.shape[2:]) != size:
        (height, width), (h, w) = levels.shape[2:], size
        raise TuningError(
            f"mask {path}: {height} x {width} (height x width), its video {video} {h} x {w}; a "
            "mask must have its video's size, because both are scaled and cropped alike"
        )
    if not binary_mask(levels).any():
        notify(
            f"warning: mask {path}: its brightest level is {float(levels.max()) * 255:.0f} of 255 "
            f"and white begins at {MASK_THRESHOLD * 255:.0f}, so nothing is regenerated"
        )
    return levels


def _mask_picture(path: str | Path, notify: Callable[[str], object]) -> Tensor:
    """Return the mask `(1, 1, H, W)` in a picture's colours or in its alpha channel."""
    colours, alpha = read_picture(path), read_alpha(path)
    levels = colours.mean(dim=0)[None, None]
    if alpha is None or _uniform(alpha):
        return levels
    if not _uniform(colours):
        notify(
            f"mask {path}: its colours are the mask and its alpha channel is not; for the alpha "
            "channel, save the picture in one colour"
        )
        return levels
    shown = " ".join(f"{float(level) * 255:.0f}" for level in colours[:, 0, 0])
    notify(
        f"mask {path}: its colour is {shown} everywhere, so its alpha channel is the mask: opaque "
        "is white, regenerated"
    )
    return alpha[None, None]


def _uniform(levels: Tensor) -> bool:
    """Return whether each channel `(..., H, W)` has one level only."""
    low, high = levels.flatten(-2).aminmax(dim=-1)
    return bool((low == high).all())


def binary_mask(levels: Tensor) -> Tensor:
    """Turn grey levels into 1 (generate) from `MASK_THRESHOLD` on and 0 (keep) below."""
    return (levels >= MASK_THRESHOLD - 1e-6).float()
