"""Control clips: computed from a video, taken unchanged, or combined from several.

All are `(f, 3, H, W)` in [0, 1], float32, the input of the control checkpoint's VAE.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from base_model.errors import GeneratorError

CANNY_LOW = 100
"""Gradient, in levels of 255, above which a pixel joins an edge next to it."""

CANNY_HIGH = 200
"""Gradient above which a pixel starts an edge."""

STROKES = 256
"""Divisor of the shorter side: a scribble's pen is `2 max(1, round(side / STROKES)) + 1` wide."""

SCRIBBLE_BLUR = 1 / 170
"""Standard deviation of the blur before a scribble, as a share of the side; at least 1.5 pixels."""

PREPARED = ("depth", "pose")
"""Controls that need a network of their own, and therefore a prepared video."""


def canny(frames: Tensor, low: float = CANNY_LOW, high: float = CANNY_HIGH) -> Tensor:
    """Return white edges on black, one pixel wide: OpenCV's Canny on colours.

    The gradient of a pixel is the largest over the channels, so that shapes stand out even from a
    background of the same brightness.

    Args:
        frames: `(f, 3, H, W)` in [0, 1].
        low: Gradient, in levels of 255, above which a pixel joins an edge next to it.
        high: Gradient above which a pixel starts an edge; at least `low`.

    Returns:
        `(f, 3, H, W)` float32, 0 or 1, three equal channels.

    Raises:
        GeneratorError: The frames have another shape, or the thresholds are out of order.
    """
    import cv2

    if not 0 <= low <= high:
        raise GeneratorError(
            f"Canny's thresholds are {low:g} and {high:g}; the lower must be from 0 to the upper. "
            f"Usual values are {CANNY_LOW} and {CANNY_HIGH}."
        )
    return _grey_clip([cv2.Canny(picture, low, high) for picture in _pictures(frames)])


def scribble(frames: Tensor) -> Tensor:
    """Return white strokes on black as from a thick pen: Canny edges of a blurred clip, widened.

    They approximate the published scribbles, which come from an edge network: strong outlines are
    kept, fine texture is blurred away.

    Args:
        frames: `(f, 3, H, W)` in [0, 1].

    Returns:
        `(f, 3, H, W)` float32, 0 or 1, three equal channels.

    Raises:
        GeneratorError: The frames have another shape.
    """
    import cv2

    pictures = _pictures(frames)
    side = min(pictures.shape[1:3])
    width = 2 * max(1, round(side / STROKES)) + 1
    pen = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    strokes = []
    for picture in pictures:
        blurred = cv2.GaussianBlur(picture, (0, 0), max(1.5, SCRIBBLE_BLUR * side))
        # Half of Canny's thresholds, because the blur lowers the gradients.
        edges = cv2.Canny(blurred, CANNY_LOW / 2, CANNY_HIGH / 2)
        strokes.append(cv2.dilate(edges, pen))
    return _grey_clip(strokes)


def unchanged(frames: Tensor) -> Tensor:
    """Return a clip that is already a control clip.

    Args:
        frames: `(f, 3, H, W)` in [0, 1].

    Returns:
        The same clip in float32.

    Raises:
        GeneratorError: The frames have another shape.
    """
    _check(frames)
    return frames.float()


PREPROCESSORS: dict[str, Callable[[Tensor], Tensor]] = {
    "canny": canny,
    "scribble": scribble,
    "video": unchanged,
}
"""Controls that can be computed from a video; "video" is a prepared control clip."""


def control_clip(kind: str, frames: Tensor) -> Tensor:
    """Compute the control clip of a video.

    Args:
        kind: A key of `PREPROCESSORS`.
        frames: `(f, 3, H, W)` in [0, 1].

    Returns:
        `(f, 3, H, W)` float32 in [0, 1].

    Raises:
        GeneratorError: The kind is unknown or not built in, or the frames have another shape.
    """
    if kind in PREPARED:
        raise GeneratorError(
            f"Control {kind!r} is not built in: it needs a network of its own. Prepare the {kind} "
            "video with another tool and give it with control kind 'video'. Built in: "
            f"{', '.join(PREPROCESSORS)}."
        )
    if kind not in PREPROCESSORS:
        raise GeneratorError(
            f"Unknown control {kind!r}; allowed: {', '.join(PREPROCESSORS)}. Give any other "
            "control as a prepared clip, kind 'video'."
        )
    return PREPROCESSORS[kind](frames)


def combine_controls(clips: Sequence[Tensor]) -> Tensor:
    """Combine control clips: the brightest value of every pixel and channel.

    Args:
        clips: At least one, each `(f, 3, H, W)` in [0, 1], of one shape.

    Returns:
        `(f, 3, H, W)` float32.

    Raises:
        GeneratorError: There is none, or their shapes differ.
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
            f"A control clip must have shape (frames, 3, height, width), got "
            f"{tuple(frames.shape)}. Give one colour clip without a batch dimension."
        )


def _size(clip: Tensor) -> str:
    frames, _, height, width = clip.shape
    return f"{frames} frames of {height} x {width}"


def _pictures(frames: Tensor) -> NDArray[np.uint8]:
    """Convert to `(f, H, W, 3)` uint8 for OpenCV."""
    _check(frames)
    levels = frames.detach().cpu().float().clamp(0, 1).mul(255).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(0, 2, 3, 1).numpy())


def _grey_clip(pictures: Sequence[NDArray[np.generic]]) -> Tensor:
    """Convert levels `(H, W)` of each frame to `(f, 3, H, W)` in [0, 1]."""
    levels = torch.from_numpy(np.stack(pictures)).float() / 255
    return levels[:, None].expand(-1, 3, -1, -1).contiguous()
