"""Changes of the frames between decoder and judge in training, against reward hacking.

A gain that holds only for these exact pixels is no improvement: a slightly different crop, a little
noise, or a small step in the direction that the judge likes least removes it. Every function here
is differentiable in the frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """Random changes that should not matter to a judge, drawn once for all frames of a clip.

    Attributes:
        crop: Largest share of each side that is cut off at a random position, in [0, 1). The rest
            is resized to the full frame.
        flip: Mirror left and right in half of the clips; not for prompts that say left or right.
        noise: Largest standard deviation of white noise added to pixels in [0, 1].
    """

    crop: float = 0.0
    flip: bool = False
    noise: float = 0.0

    def __call__(self, frames: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
        """Change the clips.

        Args:
            frames: `(b, f, 3, H, W)` in [0, 1].
            draws: b CPU generators: what a clip is shown as does not depend on the clips beside
                it.

        Returns:
            The same shape, in [0, 1].
        """
        clips = len(frames)
        drawn = [torch.rand(5, generator=draw) for draw in draws]
        size, right, down, mirrored, strength = torch.stack(drawn, dim=1)
        if self.crop or self.flip:
            kept = 1.0 - self.crop * size
            sign = torch.where(mirrored < 0.5, -1.0, 1.0) if self.flip else torch.ones(clips)
            theta = torch.zeros(clips, 2, 3)
            theta[:, 0, 0], theta[:, 1, 1] = sign * kept, kept
            theta[:, 0, 2] = (2.0 * right - 1.0) * (1.0 - kept)
            theta[:, 1, 2] = (2.0 * down - 1.0) * (1.0 - kept)
            theta = theta.to(frames.device, frames.dtype)
            flat = frames.flatten(1, 2)  # frames and colours are channels: one grid for a clip
            places = F.affine_grid(theta, list(flat.shape), align_corners=False)
            flat = F.grid_sample(flat, places, padding_mode="border", align_corners=False)
            frames = flat.view_as(frames)
        if self.noise:
            noise = [torch.randn(frames.shape[1:], generator=draw) for draw in draws]
            white = torch.stack(noise).to(frames.device, frames.dtype)
            deviation = (self.noise * strength).to(frames.device, frames.dtype)
            frames = (frames + deviation.view(-1, 1, 1, 1, 1) * white).clamp(0.0, 1.0)
        return frames


LUMINANCE = (0.299, 0.587, 0.114)
"""BT.601 weights, by which image libraries and GenRL convert colour to grey."""


def grey(frames: Tensor) -> Tensor:
    """Convert clips to grey with three equal channels: `(b, f, 3, H, W)` -> the same shape."""
    weights = frames.new_tensor(LUMINANCE).view(3, 1, 1)
    return (frames * weights).sum(dim=2, keepdim=True).repeat(1, 1, 3, 1, 1)


def worst_nearby(score: Callable[[Tensor], Tensor], frames: Tensor, radius: float) -> Tensor:
    """Move frames to where the score is lower, so that sharp peaks of a judge do not pay.

    One step of length `radius` against the score's gradient, clip by clip; the step itself is a
    constant (sharpness-aware minimisation, Foret et al., arXiv 2010.01412, here in pixels).

    Args:
        score: `(b, f, 3, H, W)` -> `(b,)`, differentiable.
        frames: `(b, f, 3, H, W)` in [0, 1].
        radius: Root mean square change of a pixel, above 0; 0.01 is 2.5 of 255 levels.

    Returns:
        The moved frames, in [0, 1]; gradient reaches `frames` as if they had not been moved.
    """
    leaf = frames.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(score(leaf).sum(), leaf)
    size = gradient.square().flatten(1).mean(dim=1).sqrt()
    step = (radius / size).nan_to_num(posinf=0.0).view(-1, 1, 1, 1, 1)
    return (frames - step * gradient).clamp(0.0, 1.0)
