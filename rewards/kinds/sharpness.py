"""Sharpness: the variance of the Laplacian. It only measures: training on it would add noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewards.core.base import VideoReward

LUMINANCE = (0.299, 0.587, 0.114)
"""BT.601 weights, by which image libraries convert colour to grey."""

LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))


def laplacian_variance(images: Tensor) -> Tensor:
    """Return the variance of the Laplacian of grey levels, a usual measure of blur.

    Args:
        images: `(n, 3, H, W)` in [0, 1], mirrored at the edges; a side of one pixel is repeated.

    Returns:
        `(n,)` in squared levels of 255: below 100 usually counts as blurred.
    """
    grey = (255 * images * images.new_tensor(LUMINANCE).view(3, 1, 1)).sum(dim=1, keepdim=True)
    kernel = images.new_tensor(LAPLACIAN).view(1, 1, 3, 3)
    for sides, length in (((1, 1, 0, 0), grey.shape[-1]), ((0, 0, 1, 1), grey.shape[-2])):
        grey = F.pad(grey, sides, mode="reflect" if length > 1 else "replicate")
    edges = F.conv2d(grey, kernel)
    return edges.flatten(1).var(dim=1, unbiased=False)


class Sharpness(VideoReward):
    """The mean over frames of `laplacian_variance`, without gradient."""

    name = "sharpness"
    reads_text = False
    differentiable = False

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)

    @property
    def reach(self) -> int:
        """One: each frame is scored alone."""
        return 1

    @property
    def modules(self) -> list[nn.Module]:
        """Empty: there are no weights."""
        return []

    @torch.no_grad()
    def score_clips(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """`(b, f, 3, H, W)` in [0, 1] -> `(b,)`."""
        scores = laplacian_variance(frames.flatten(0, 1))
        return scores.unflatten(0, frames.shape[:2]).mean(dim=1)
