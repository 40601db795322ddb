"""Per-pixel maps, masks and camera rays, on the grid of the latents."""

import torch
import torch.nn.functional as F
from torch import Tensor


def to_latent_grid(maps: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Scales maps to the latents' grid as the published pipelines do.

    The VAE makes the first latent of the first frame alone and every further one of four frames, so
    the first frame and the rest are scaled apart, trilinearly and without antialiasing. At the
    usual ratio of 4 a latent frame has the mean of the two middle ones of its four frames.

    Args:
        maps: `(b, c, f, H, W)`, f = 4 (t - 1) + 1.
        size: t, h/8 and w/8 of the latents.

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
