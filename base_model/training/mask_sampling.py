"""Masks that an inpaint model is trained with: what is kept of a clip, and what it must make.

Ten kinds of masks for clips and two for pictures, with the published probabilities. They cover what
users ask of the model: text alone, a first image, both ends, an edited region.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

CLIP_MASKS = (
    "block",
    "all",
    "after_start",
    "between_ends",
    "block_in_time",
    "pixels",
    "frame_blocks",
    "ellipse",
    "circle",
    "frames",
)
CLIP_PROBABILITIES = (0.05, 0.2, 0.2, 0.2, 0.05, 0.05, 0.05, 0.1, 0.05, 0.05)
PICTURE_MASKS = ("block", "all")
PICTURE_PROBABILITIES = (0.2, 0.8)
MOST_KEPT = 4
"""Frames that `after_start` and `between_ends` keep at most, at each end."""

KEPT_NOISE_MEAN, KEPT_NOISE_DEVIATION = -3.0, 0.5
"""Of the logarithm of the deviation of the noise on kept pixels, drawn for each sample."""

TEXT_ONLY_SHARE = 0.9
"""Share of the samples of which nothing is kept that get zeros in all channels."""


def draw_mask_kind(
    frames: int, generator: torch.Generator, probabilities: Sequence[float] | None = None
) -> str:
    """Draw the kind of a mask.

    Args:
        frames: Of the clip; 1 is a picture.
        generator: Of the draw.
        probabilities: As many as the kinds of clip or picture; None is the published ones.
    """
    kinds = PICTURE_MASKS if frames == 1 else CLIP_MASKS
    if probabilities is None:
        probabilities = PICTURE_PROBABILITIES if frames == 1 else CLIP_PROBABILITIES
    weights = torch.tensor(list(probabilities), dtype=torch.float64)
    assert len(weights) == len(kinds)
    return kinds[int(torch.multinomial(weights, 1, generator=generator))]


def draw_mask(kind: str, size: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Draw a mask of a kind.

    A block spans a quarter to three quarters of each side and may stand out of the picture; an
    ellipse's radii are an eighth to a quarter of the shorter side.

    Args:
        kind: A word of `CLIP_MASKS`.
        size: Frames, height and width. `between_ends` keeps fewer frames where a clip is so short
            that nothing would be left to make; the published code then masks nothing.
        generator: Of the draw.

    Returns:
        `(f, 1, H, W)` float32: 1 where it is to be generated, 0 where it is kept.

    Raises:
        ValueError: No such kind, or one that a picture cannot have.
    """
    frames, height, width = size

    def whole(low: int, high: int) -> int:
        """A number from low to high, both included."""
        return int(torch.randint(low, max(high, low) + 1, (), generator=generator))

    mask = torch.zeros(frames, 1, height, width)
    match kind:
        case "all":
            mask[:] = 1
        case "block":
            mask[(..., *_block(height, width, whole))] = 1
        case "after_start" if frames > 1:
            mask[whole(1, min(MOST_KEPT, frames - 1)) :] = 1
        case "between_ends" if frames > 2:
            kept = whole(1, min(MOST_KEPT, (frames - 1) // 2))
            mask[kept : frames - kept] = 1
        case "block_in_time" if frames > 1:
            first, last = whole(0, frames // 2 - 1), whole(frames // 2, frames - 1)
            mask[(slice(first, last), slice(None), *_block(height, width, whole))] = 1
        case "pixels":
            mask = torch.randint(0, 2, mask.shape, generator=generator).float()
        case "frame_blocks" if frames > 1:
            chosen = torch.randperm(frames, generator=generator)[: whole(1, frames // 2)]
            for frame in chosen.tolist():
                h, w = whole(1, height // 4), whole(1, width // 4)
                top, left = whole(0, height - h), whole(0, width - w)
                mask[frame, :, top : top + h, left : left + w] = 1
        case "ellipse" | "circle":
            y, x = whole(0, height - 1), whole(0, width - 1)
            short = min(height, width)
            ry = whole(max(1, short // 8), short // 4)
            rx = ry if kind == "circle" else whole(max(1, short // 8), short // 4)
            mask[..., _ellipse((height, width), (y, x), (ry, rx))] = 1
        case "frames" if frames > 1:
            mask[torch.rand(frames, generator=generator) > 0.5] = 1
        case _:
            raise ValueError(f"no mask {kind!r} of {frames} frames; kinds: {', '.join(CLIP_MASKS)}")
    return mask


def draw_masks(
    batch: int,
    size: tuple[int, int, int],
    generator: torch.Generator,
    probabilities: Sequence[float] | None = None,
) -> Tensor:
    """Draw a kind and a mask for each sample: `(b, f, 1, H, W)`."""
    kinds = [draw_mask_kind(size[0], generator, probabilities) for _ in range(batch)]
    return torch.stack([draw_mask(kind, size, generator) for kind in kinds])


def draw_kept_noise(batch: int, size: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Noise for kept pixels in [-1, 1], of a deviation exp(N(-3, 0.5)) a sample.

    Returns:
        `(b, 3, f, H, W)` float32.
    """
    logarithm = torch.normal(
        KEPT_NOISE_MEAN, KEPT_NOISE_DEVIATION, size=(batch, 1, 1, 1, 1), generator=generator
    )
    return torch.randn(batch, 3, *size, generator=generator) * math.e**logarithm


def _block(height: int, width: int, whole: Callable[[int, int], int]) -> tuple[slice, slice]:
    sides = []
    for side in (height, width):
        centre = whole(0, side - 1)
        length = whole(side // 4, side // 4 * 3 - 1)
        sides.append(slice(max(centre - length // 2, 0), min(centre + length // 2, side)))
    return sides[0], sides[1]


def _ellipse(size: tuple[int, int], centre: tuple[int, int], radii: tuple[int, int]) -> Tensor:
    y = torch.arange(size[0])[:, None] - centre[0]
    x = torch.arange(size[1])[None] - centre[1]
    return (y / radii[0]) ** 2 + (x / radii[1]) ** 2 <= 1
