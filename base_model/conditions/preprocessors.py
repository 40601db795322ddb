"""Control clips: made from a video, taken as they are, or several of them in one.

All are `(f, 3, H, W)` in [0, 1], float32: what the control checkpoint's VAE encodes.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from base_model.errors import GeneratorError

CANNY_LOW = 100
"""Gradient, in levels of 255, above which a pixel joins an edge that it touches."""

CANNY_HIGH = 200
"""Gradient above which a pixel starts an edge."""

STROKES = 256
"""A scribble's pen is `2 max(1, round(side / STROKES)) + 1` pixels wide, side the shorter one."""

SCRIBBLE_BLUR = 1 / 170
"""Standard deviation of the blur before a scribble, as share of the side; at least 1.5 pixels."""

PREPARED = ("depth", "pose")
"""Controls that need a network of their own, and so a video that was made elsewhere."""


def canny(frames: Tensor, low: float = CANNY_LOW, high: float = CANNY_HIGH) -> Tensor:
    """White edges on black, one pixel wide: OpenCV's Canny on the colours.

    A pixel's gradient is that of the channel in which it is largest, so shapes stand out from a
    background of the same brightness too.

    Args:
        frames: `(f, 3, H, W)` in [0, 1].
        low: Gradient, in levels of 255, above which a pixel joins an edge that it touches.
        high: Gradient above which a pixel starts an edge; at least `low`.

    Returns:
        `(f, 3, H, W)` float32, 0 or 1, three equal channels.

    Raises:
        GeneratorError: When the frames have another shape, or the thresholds do not fit.
    """
    import cv2

    if not 0 <= low <= high:
        raise GeneratorError(
            f"Canny's thresholds are {low:g} and {high:g}; the lower must be in 0 ... the upper. "
            f"The usual ones are {CANNY_LOW} and {CANNY_HIGH}."
        )
    return _grey_clip([cv2.Canny(picture, low, high) for picture in _pictures(frames)])


def scribble(frames: Tensor) -> Tensor:
    """White strokes on black as of a thick pen: blurred, then Canny's edges, widened.

    It stands for the published scribbles, which come from an edge network, and misses none of the
    strong outlines; fine texture is blurred away.

    Args:
        frames: `(f, 3, H, W)` in [0, 1].

    Returns:
        `(f, 3, H, W)` float32, 0 or 1, three equal channels.

    Raises:
        GeneratorError: When the frames have another shape.
    """
    import cv2

    pictures = _pictures(frames)
    side = min(pictures.shape[1:3])
    width = 2 * max(1, round(side / STROKES)) + 1
    pen = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    strokes = []
    for picture in pictures:
        blurred = cv2.GaussianBlur(picture, (0, 0), max(1.5, SCRIBBLE_BLUR * side))
        # Half of Canny's thresholds: the blur has lowered the gradients.
        edges = cv2.Canny(blurred, CANNY_LOW / 2, CANNY_HIGH / 2)
        strokes.append(cv2.dilate(edges, pen))
    return _grey_clip(strokes)


def as_it_is(frames: Tensor) -> Tensor:
    """A clip that is a control clip already.

    Args:
        frames: `(f, 3, H, W)` in [0, 1].

    Returns:
        The same, float32.

    Raises:
        GeneratorError: When the frames have another shape.
    """
    _check(frames)
    return frames.float()


PREPROCESSORS: dict[str, Callable[[Tensor], Tensor]] = {
    "canny": canny,
    "scribble": scribble,
    "video": as_it_is,
}
"""What a video can be turned into; "video" is a control clip that was prepared elsewhere."""


def control_clip(kind: str, frames: Tensor) -> Tensor:
    """The control clip of a video.

    Args:
        kind: A key of `PREPROCESSORS`.
        frames: `(f, 3, H, W)` in [0, 1].

    Returns:
        `(f, 3, H, W)` float32 in [0, 1].

    Raises:
        GeneratorError: When the kind is not built in or not known, or the frames have another
            shape.
    """
    if kind in PREPARED:
        raise GeneratorError(
            f"Control {kind!r} is not built in: it needs a network of its own. Make the {kind} "
            "video with a tool for it, and give that video with control kind 'video'. Built in are "
            f"{', '.join(PREPROCESSORS)}."
        )
    if kind not in PREPROCESSORS:
        raise GeneratorError(
            f"Control {kind!r} is not known; allowed are {', '.join(PREPROCESSORS)}. Any other "
            "control goes in as a prepared clip, kind 'video'."
        )
    return PREPROCESSORS[kind](frames)


def combine_controls(clips: Sequence[Tensor]) -> Tensor:
    """Several control clips in one: the brightest value of every pixel and channel.

    Args:
        clips: At least one, each `(f, 3, H, W)` in [0, 1], of one shape.

    Returns:
        `(f, 3, H, W)` float32.

    Raises:
        GeneratorError: When there is none, or their shapes differ.
    """
    if not clips:
        raise GeneratorError("No control clip to combine. Give at least one.")
    for i, clip in enumerate(clips):
        _check(clip)
        if clip.shape != clips[0].shape:
            raise GeneratorError(
                f"Control clip {i} has {_size(clip)}, the first one {_size(clips[0])}. Control "
                "clips that are combined must have the same number of frames and the same size: "
                "cut or resize them."
            )
    return torch.stack([clip.float() for clip in clips]).amax(dim=0)


def _check(frames: Tensor) -> None:
    if frames.ndim != 4 or frames.shape[1] != 3 or 0 in frames.shape:
        raise GeneratorError(
            f"A clip for control has shape (frames, 3, height, width), got {tuple(frames.shape)}. "
            "Give one clip, without a batch dimension, in colour."
        )


def _size(clip: Tensor) -> str:
    frames, _, height, width = clip.shape
    return f"{frames} frames of {height} x {width}"


def _pictures(frames: Tensor) -> NDArray[np.uint8]:
    """`(f, H, W, 3)` uint8, as OpenCV takes them."""
    _check(frames)
    levels = frames.detach().cpu().float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).numpy())


def _grey_clip(pictures: Sequence[NDArray[np.generic]]) -> Tensor:
    """`(H, W)` levels of each frame to `(f, 3, H, W)` in [0, 1]."""
    levels = torch.from_numpy(np.stack(pictures)).float() / 255
    return levels[:, None].expand(-1, 3, -1, -1).contiguous()
