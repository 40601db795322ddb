"""Sharpness: the variance of the Laplacian. It only measures: a gradient would make it noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewards.core.base import VideoReward

LUMINANCE = (0.299, 0.587, 0.114)
"""BT.601, as image libraries turn colour into grey."""

LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))


def laplacian_variance(images: Tensor) -> Tensor:
    """Variance of the Laplacian of grey levels, edges mirrored (the usual measure of blur).

    Args:
        images: `(n, 3, H, W)` in [0, 1]. A side of one pixel has no other to be unlike.

    Returns:
        `(n,)` in squared levels of 255: under 100 is usually called blurred.
    """
    grey = (255 * images * images.new_tensor(LUMINANCE).view(3, 1, 1)).sum(dim=1, keepdim=True)
    kernel = images.new_tensor(LAPLACIAN).view(1, 1, 3, 3)
    for sides, length in (((1, 1, 0, 0), grey.shape[-1]), ((0, 0, 1, 1), grey.shape[-2])):
        grey = F.pad(grey, sides, mode="reflect" if length > 1 else "replicate")
    edges = F.conv2d(grey, kernel)
    return edges.flatten(1).var(dim=1, unbiased=False)


class Sharpness(VideoReward):
    """Mean over frames of `laplacian_variance`, without gradient."""

    name = "sharpness"
    reads_text = False
    evaluation_only = True

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)

    @property
    def reach(self) -> int:
        """Each frame on its own."""
        return 1

    @property
    def modules(self) -> list[nn.Module]:
        """None."""
        return []

    @torch.no_grad()
    def score_clips(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """`(b, f, 3, H, W)` in [0, 1] -> `(b,)`."""
        scores = laplacian_variance(frames.flatten(0, 1))
        return scores.unflatten(0, frames.shape[:2]).mean(dim=1)
