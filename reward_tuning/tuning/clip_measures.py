"""Measures of any clip without a judge: motion, light and colour, and diversity."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor


def measures(frames: Tensor) -> dict[str, Tensor]:
    """Return every measure of each clip by name; a new measure is a line here.

    Args:
        frames: `(b, f, 3, H, W)` in [0, 1].

    Returns:
        Name to `(b,)`.
    """
    return {"motion": motion(frames), **light_and_colour(frames)}


def motion(frames: Tensor) -> Tensor:
    """Compute the mean absolute pixel difference of neighbouring frames.

    Args:
        frames: `(b, f, 3, H, W)` in [0, 1].

    Returns:
        `(b,)`; 0 for single frames.
    """
    if frames.shape[1] < 2:
        return frames.new_zeros(len(frames))
    return frames.diff(dim=1).abs().flatten(1).mean(dim=1)


def light_and_colour(frames: Tensor) -> dict[str, Tensor]:
    """Measure brightness, contrast and saturation, which reward hacking often changes first.

    Args:
        frames: `(b, f, 3, H, W)` in [0, 1].

    Returns:
        Name to `(b,)`: `brightness`, the mean of luma (0.299 R + 0.587 G + 0.114 B); `contrast`,
        the standard deviation of luma within a frame; `saturation`, the mean of chroma (the largest
        of R, G and B less the smallest). Each the mean over frames, in [0, 1].
    """
    red, green, blue = frames.unbind(dim=2)
    luma = (0.299 * red + 0.587 * green + 0.114 * blue).flatten(2)
    chroma = frames.amax(dim=2) - frames.amin(dim=2)
    return {
        "brightness": luma.mean(dim=(1, 2)),
        "contrast": luma.std(dim=2, correction=0).mean(dim=1),
        "saturation": chroma.flatten(1).mean(dim=1),
    }


def diversity(clips: Sequence[Tensor]) -> float:
    """Compute the mean absolute pixel difference over all pairs of clips, 2 or more."""
    pairs = [float((a - b).abs().mean()) for a, b in itertools.combinations(clips, 2)]
    return sum(pairs) / len(pairs)
