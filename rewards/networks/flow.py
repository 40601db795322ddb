"""Speed of a clip in pixels per frame, from a soft cost volume: no weights, differentiable.

First, frames are averaged with their neighbours in time (1, 2, 1): otherwise, ascent on pixels
raises the speed by patterns that jump to and fro between frames. Then every patch of a frame is
compared with the patches around its position in the next frame, each patch without its mean and at
length 1 (their squared distance is 2 - 2 x correlation). A sharp softmax over the displacements
gives the expected one. Flat patches, patches without a match, and patches with many matches
(stripes, straight edges) have no weight; brightness and contrast do not matter.

The result is biased towards whole averaged pixels: the search averages 2 x 2 pixels of frames up to
128 on their shortest side, and more of larger ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recomputed

from rewards.errors import RewardError

FEWEST_FRAMES = 4
LEAST_SIDE = 32

FINEST = 2
"""Pixels averaged per side before the search; more if the shortest side exceeds 128."""

LONGEST_SEARCH_SIDE = 64
"""Largest shortest side after averaging: bounds memory, makes the reach a share of the frame."""

REACH = 6
"""Reach of the search in averaged pixels per direction: 12 pixels of a frame of 128."""

PATCH = 7
"""Side of a patch in averaged pixels."""

SHARPNESS = 25.0
"""Sharpness of the softmax over correlations.

12 measures 0.08 pixels per frame in a noisy still; 50 rounds to whole pixels.
"""

FOUND = (0.5, 0.8)
"""Correlations at which a patch begins to count as found, and counts fully.

Patches of unrelated pictures reach 0.33 on average, those of a noisy still 0.95, of a pan by half a
pixel 0.83.
"""

SCATTER = 0.5
"""Variance of the matched displacement, in squared averaged pixels, at which a patch counts 1/e.

A patch with one clear match has 0.1 to 0.4, along a stripe or a straight edge 3 or more.
"""

LEAST_FOUND = 0.5
"""Share of a frame's structure that must be found again for its flow to count fully.

Of unrelated frames almost none is.
"""

LEAST_CERTAIN = 0.05
"""The same for structure with one clear match; of stripes only the frame's corners have one."""

STRUCTURE = 0.03
"""Standard deviation of a patch's values at which it counts half."""

_ROUND = 1e-3  # averaged pixels; keeps the gradient of a length finite at 0


@dataclass(frozen=True)
class Flow:
    """Flow between neighbouring frames at the search's resolution.

    Attributes:
        displacement: `(n, 2, h, w)` expected x and y displacement, pixels of the frame.
        structure: `(n, h, w)` in [0, 1]: 0 for flat patches.
        found: `(n, h, w)` in [0, 1]: 0 for patches without a match in the next frame.
        certain: `(n, h, w)` in [0, 1]: 0 for patches with many matches in it.
    """

    displacement: Tensor
    structure: Tensor
    found: Tensor
    certain: Tensor


def flow_speed(frames: Tensor, pairs_at_once: int = 4) -> Tensor:
    """Return the mean speed of everything with structure.

    Args:
        frames: `(b, f, 3, H, W)` in [0, 1], f at least 4, shortest side at least 32.
        pairs_at_once: Number of frame pairs computed together, and again in the backward pass;
            bounds the memory.

    Returns:
        `(b,)` pixels per frame, differentiable. The gradient vanishes for a still clip.

    Raises:
        RewardError: Frames are too few or too small.
    """
    b, f, _, height, width = frames.shape
    if f < FEWEST_FRAMES or min(height, width) < LEAST_SIDE:
        raise RewardError(
            f"flow needs {FEWEST_FRAMES} neighbouring frames of {LEAST_SIDE} pixels or more; got "
            f"{f} of {height} x {width}. Use longer or larger clips"
        )
    pixels = max(FINEST, -(-min(height, width) // LONGEST_SEARCH_SIDE))
    coarse = F.avg_pool2d(frames.flatten(0, 1), pixels).unflatten(0, (b, f))
    smooth = (coarse[:, :-2] + 2 * coarse[:, 1:-1] + coarse[:, 2:]) / 4
    before, after = smooth[:, :-1].flatten(0, 1), smooth[:, 1:].flatten(0, 1)
    speeds = [
        recomputed(_pair_speed, one, other, use_reentrant=False)
        for one, other in zip(before.split(pairs_at_once), after.split(pairs_at_once), strict=True)
    ]
    return pixels * torch.cat(speeds).view(b, f - 3).mean(dim=1)


def _pair_speed(before: Tensor, after: Tensor) -> Tensor:
    """Return the speeds between frames, twice `(n, 3, h, w)`: `(n,)` averaged pixels per frame."""
    flow = search(before, after)
    length = (flow.displacement.square().sum(dim=1) + _ROUND**2).sqrt() - _ROUND
    found = flow.structure * flow.found
    weight = found * flow.certain
    speed = (length * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2)).clamp_min(1e-6)
    structure = flow.structure.sum(dim=(1, 2)).clamp_min(1e-6)
    for part, least in ((found, LEAST_FOUND), (weight, LEAST_CERTAIN)):
        speed = speed * (part.sum(dim=(1, 2)) / structure / least).clamp_max(1.0)
    return speed


def search(before: Tensor, after: Tensor) -> Flow:
    """Find each patch of one picture in another.

    Args:
        before: `(n, 3, h, w)`.
        after: `(n, 3, h, w)`.

    Returns:
        The flow, displacements in pixels of these pictures.
    """
    h, w = before.shape[-2:]
    correlation, variance = correlations(before, after)
    steps = torch.arange(-REACH, REACH + 1, device=before.device)
    dy, dx = (axis.flatten()[:, None, None] for axis in torch.meshgrid(steps, steps, indexing="ij"))
    y = torch.arange(h, device=before.device)[:, None] + dy
    x = torch.arange(w, device=before.device) + dx
    outside = (y < 0) | (y >= h) | (x < 0) | (x >= w)
    match = (SHARPNESS * correlation).masked_fill(outside, float("-inf")).softmax(dim=1)
    displacement = torch.stack([(match * dx).sum(dim=1), (match * dy).sum(dim=1)], dim=1)
    scatter = (match * (dx**2 + dy**2)).sum(dim=1) - displacement.square().sum(dim=1)
    low, high = FOUND
    likeness = ((match * correlation).sum(dim=1) - low) / (high - low)
    return Flow(
        displacement,
        structure=variance / (variance + STRUCTURE**2),
        found=likeness.clamp(0.0, 1.0),
        certain=(-scatter / SCATTER).exp(),
    )


def correlations(before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """Correlate each patch with the patches around its position.

    Args:
        before: `(n, 3, h, w)`.
        after: `(n, 3, h, w)`; both are extended beyond their edges by the outermost pixels.

    Returns:
        `(n, (2 REACH + 1)**2, h, w)` in [-1, 1], displacements row by row, and the variance of
        the patches of `before`, `(n, h, w)`.
    """
    h, w = before.shape[-2:]
    half = PATCH // 2
    before = F.pad(before, [half] * 4, mode="replicate")
    after = F.pad(after, [half + REACH] * 4, mode="replicate")
    mean, variance = _patch_moments(before)
    other_mean, other_variance = _patch_moments(after)
    shifted = _windows(after, h + 2 * half, w + 2 * half)
    products = (shifted * before[:, :, None]).mean(dim=1)
    means = (_windows(other_mean, h, w) * mean[:, :, None]).mean(dim=1)
    covariance = F.avg_pool2d(products, PATCH, stride=1) - means
    spread = variance[:, None] * _windows(other_variance[:, None], h, w)[:, 0]
    # 1e-4 is the variance of a patch that varies by 0.01, little more than rounding to bytes.
    return covariance / ((spread + 1e-12).sqrt() + 1e-4), variance


def _patch_moments(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Return each patch's mean colour `(n, 3, h, w)` and variance `(n, h, w)`."""
    mean = F.avg_pool2d(pictures, PATCH, stride=1)
    variance = F.avg_pool2d(pictures.square(), PATCH, stride=1) - mean.square()
    return mean, variance.mean(dim=1).clamp_min(0.0)


def _windows(pictures: Tensor, height: int, width: int) -> Tensor:
    """Return every crop of a size: `(n, c, H, W)` -> `(n, c, displacements, height, width)`."""
    return pictures.unfold(2, height, 1).unfold(3, width, 1).flatten(2, 3)
