"""Masks for the training of an inpaint model.

There are ten kinds of masks for clips and two for pictures, with the published probabilities. They
cover the uses of the model: text alone, a first image, both ends, an edited region.
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
PICTURE_PROBABILITIES = (0.2, 0.8)  # of one frame, which has no time to mask in
MOST_KEPT = 4
"""Largest number of frames that `after_start` and `between_ends` keep at each end."""

KEPT_NOISE_MEAN, KEPT_NOISE_DEVIATION = -3.0, 0.5
"""Mean and deviation of the logarithm of the noise level on kept pixels, drawn for each sample."""

TEXT_ONLY_SHARE = 0.9
"""Share of the samples without kept pixels that get zeros in all channels."""


def draw_mask_kind(
    frames: int, generator: torch.Generator, probabilities: Sequence[float] | None = None
) -> str:
    """Draw the kind of a mask.

    Args:
        frames: Frames of the clip; 1 is a picture.
        generator: Random generator.
        probabilities: One for each kind of clip or picture mask; None takes the published ones.
    """
    kinds = PICTURE_MASKS if frames == 1 else CLIP_MASKS
    if probabilities is None:
        probabilities = PICTURE_PROBABILITIES if frames == 1 else CLIP_PROBABILITIES
    weights = torch.tensor(list(probabilities), dtype=torch.float64)
    assert len(weights) == len(kinds)
    return kinds[int(torch.multinomial(weights, 1, generator=generator))]


def draw_mask(kind: str, size: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Draw a mask of a kind.

    A block spans a quarter to three quarters of each side and may cross the edges; an ellipse's
    radii are an eighth to a quarter of the shorter side.

    Args:
        kind: Entry of `CLIP_MASKS`.
        size: Frames, height and width. `between_ends` keeps fewer frames in a clip so short that no
            frame would be left to generate; the published code then masks nothing.
        generator: Random generator.

    Returns:
        `(f, 1, H, W)` float32: 1 for generated pixels, 0 for kept ones.

    Raises:
        ValueError: The kind is unknown, or impossible for a picture.
    """
    frames, height, width = size

    def whole(low: int, high: int) -> int:
        """Draw a number from low to high, both included."""
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
            raise ValueError(
                f"no mask {kind!r} for {frames} frames; allowed: {', '.join(CLIP_MASKS)}"
            )
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
    """Draw noise for kept pixels in [-1, 1], with deviation exp(N(-3, 0.5)) for each sample.

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
