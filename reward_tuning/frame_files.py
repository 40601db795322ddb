"""Pictures and clips from files, at the size that is asked for.

One rule for all of them: scaled, without distortion, until they cover the size, then cut to it
around the middle. That is how the generator's training clips are made.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from reward_tuning.clips import read_clip
from reward_tuning.errors import TuningError

GENERATE_FROM = 240 / 255
"""Grey level of a mask file from which a pixel is generated, as in the published script."""
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


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


def read_picture(path: str | Path) -> Tensor:
    """Read a picture, turned as its camera says: `(3, H, W)` float32 in [0, 1].

    Raises:
        TuningError: The file is missing or is no picture.
    """
    import numpy as np
    from PIL import Image, ImageOps

    path = Path(path)
    if not path.is_file():
        raise TuningError(f"picture {path}: no such file")
    try:
        with Image.open(path) as opened:
            levels = np.array(ImageOps.exif_transpose(opened).convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise TuningError(
            f"picture {path}: not a picture that can be read ({error}); give a "
            f"{', '.join(PICTURES)} file"
        ) from error
    return torch.from_numpy(levels).permute(2, 0, 1).float() / 255


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
        fits = max(len(clip) - 1, 0) // 4 * 4 + 1
        raise TuningError(
            f"{what} {path}: {len(clip)} frames are fewer than the clip's {frames}; give a longer "
            f"one, or ask for {fits} frames"
        )
    return clip


def read_mask(path: str | Path, frames: int, size: tuple[int, int], video: str | Path) -> Tensor:
    """Read a mask: a picture for every frame, or a clip.

    Args:
        path: White where the video shall be made anew, black where it is kept.
        frames: Of the clip.
        size: Height and width of the video's own frames.
        video: Its file, for the error.

    Returns:
        `(frames, 1, H, W)`, or `(1, 1, H, W)` for a picture: grey levels in [0, 1]. What
        `binary_mask` gives is to be taken after they have been `fitted`.

    Raises:
        TuningError: It cannot be read, is shorter than the clip, or is of another size than the
            video.
    """
    if Path(path).suffix.lower() in PICTURES:
        levels = read_picture(path)[None]
    else:
        levels = read_frames(path, frames, "mask")
    if tuple(levels.shape[2:]) != size:
        (height, width), (h, w) = levels.shape[2:], size
        raise TuningError(
            f"mask {path}: {height} x {width} (height x width), its video {video} {h} x {w}; a "
            "mask must have its video's size, for both are scaled and cut alike"
        )
    return levels.mean(dim=1, keepdim=True)


def binary_mask(levels: Tensor) -> Tensor:
    """Grey levels to 1, generate, from `GENERATE_FROM` on, and to 0, keep, below."""
    return (levels >= GENERATE_FROM - 1e-6).float()
