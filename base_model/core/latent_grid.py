"""Scaling of per-pixel maps (masks, camera rays) to the grid of the latents."""

import torch
import torch.nn.functional as F
from torch import Tensor


def to_latent_grid(maps: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Scale maps to the grid of the latents as the published pipelines do.

    The VAE encodes the first frame to a latent of its own and every further four frames to one, so
    the first frame and the rest are scaled separately, trilinearly and without antialiasing. At the
    usual ratio of 4 a latent frame gets the mean of the two middle frames of its four.

    Args:
        maps: `(b, c, f, H, W)`, f = 4 (t - 1) + 1.
        size: t, h/8 and w/8.

    Returns:
        `(b, c, t, h/8, w/8)`, dtype of `maps`, differentiable.
    """
    t, height, width = size

    def scaled(part: Tensor, frames: int) -> Tensor:
        return F.interpolate(
            part, size=(frames, height, width), mode="trilinear", align_corners=False
        )

    first = scaled(maps[:, :, :1], 1)
    if t == 1:
        return first
    return torch.cat([first, scaled(maps[:, :, 1:], t - 1)], dim=2)
