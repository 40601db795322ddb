"""Pictures and clips from files, at the size that is asked for.

One rule for all of them: scaled, without distortion, until they cover the size, then cut to it
around the middle. That is how the generator's training clips are made.
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
from reward_tuning.files.pictures import PICTURES, read_alpha, read_picture

GENERATE_FROM = 240 / 255
"""Grey level of a mask file from which a pixel is generated, as in the published script."""


def fitted(frames: Tensor, height: int, width: int) -> Tensor:
    """Scale frames until they cover a size, and cut what stands out around the middle.

    Args:
        frames: `(f, c, h, w)` in [0, 1].
        height: Pixels.
        width: Pixels.

    Returns:
        `(f, c, height, width)` in [0, 1], bicubic with antialiasing; the same where the size fits.
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
        path: An mp4, webm or gif.
        frames: How many are needed.
        what: What the error calls the clip, such as `control video`.

    Returns:
        `(frames, 3, H, W)` float32 in [0, 1].

    Raises:
        TuningError: The file is missing, is no video, or is shorter.
    """
    clip = read_clip(path, lambda count: range(min(count, frames)))
    if len(clip) < frames:
        fits = FAMILY.fitting_frames(len(clip))
        raise TuningError(
            f"{what} {path}: {len(clip)} frames are fewer than the clip's {frames}; give a longer "
            f"one, or ask for {fits} frames"
        )
    return clip


def read_mask(
    path: str | Path,
    frames: int,
    size: tuple[int, int],
    video: str | Path,
    say: Callable[[str], object] = str,
) -> Tensor:
    """Read a mask: a picture for every frame, or a clip.

    Of a picture whose colours are all alike and whose alpha channel is not, the alpha channel is
    the mask: opaque is white.

    Args:
        path: White where the video shall be made anew, black where it is kept.
        frames: Of the clip.
        size: Height and width of the video's own frames.
        video: Its file, for the error.
        say: Called with what a person should know of how the file was read.

    Returns:
        `(frames, 1, H, W)`, or `(1, 1, H, W)` for a picture: grey levels in [0, 1]. What
        `binary_mask` gives is to be taken after they have been `fitted`.

    Raises:
        TuningError: It cannot be read, is shorter than the clip, or is of another size than the
            video.
    """
    if Path(path).suffix.lower() in PICTURES:
        levels = _mask_picture(path, say)
    else:
        levels = read_frames(path, frames, "mask").mean(dim=1, keepdim=True)
    if tuple(levels.shape[2:]) != size:
        (height, width), (h, w) = levels.shape[2:], size
        raise TuningError(
            f"mask {path}: {height} x {width} (height x width), its video {video} {h} x {w}; a "
            "mask must have its video's size, for both are scaled and cut alike"
        )
    if not binary_mask(levels).any():
        say(
            f"warning: mask {path}: its brightest level is {float(levels.max()) * 255:.0f} of 255 "
            f"and white begins at {GENERATE_FROM * 255:.0f}, so nothing is regenerated"
        )
    return levels


def _mask_picture(path: str | Path, say: Callable[[str], object]) -> Tensor:
    """`(1, 1, H, W)`, of the colours or the alpha channel."""
    colours, alpha = read_picture(path), read_alpha(path)
    levels = colours.mean(dim=0)[None, None]
    if alpha is None or _even(alpha):
        return levels
    if not _even(colours):
        say(
            f"mask {path}: its colours are the mask and its alpha channel is not; for the alpha "
            "channel, save the picture in one colour"
        )
        return levels
    shown = " ".join(f"{float(level) * 255:.0f}" for level in colours[:, 0, 0])
    say(
        f"mask {path}: its colour is {shown} everywhere, so its alpha channel is the mask: opaque "
        "is white, regenerated"
    )
    return alpha[None, None]


def _even(levels: Tensor) -> bool:
    """Whether each channel `(..., H, W)` is one level."""
    low, high = levels.flatten(-2).aminmax(dim=-1)
    return bool((low == high).all())


def binary_mask(levels: Tensor) -> Tensor:
    """Grey levels to 1, generate, from `GENERATE_FROM` on, and to 0, keep, below."""
    return (levels >= GENERATE_FROM - 1e-6).float()
