"""Degradations of frames, each with a degree from 0 (unchanged) to 1.

They imitate the faults of a small video generator: soft or smeared edges, wobbly outlines, doubled
objects, washed-out or patchy colours, noise and the grid of an 8 x 8 compression.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

Degradation = Callable[[Tensor, Tensor, Generator], Tensor]
"""`(n, 3, H, W)` in [0, 1], degrees `(n,)`, random generator -> `(n, 3, H, W)`."""


def degrade(frames: Tensor, kinds: Tensor, degrees: Tensor, generator: Generator) -> Tensor:
    """Degrade every frame in its own way.

    Args:
        frames: `(n, 3, H, W)` in [0, 1].
        kinds: `(n,)` indices into `DEGRADATIONS`.
        degrees: `(n,)` in [0, 1]; 0 leaves a frame unchanged.
        generator: Random generator of shifts, fields and noise.

    Returns:
        `(n, 3, H, W)` in [0, 1].
    """
    spoiled = frames.clone()
    for index, degradation in enumerate(DEGRADATIONS.values()):
        # Rows of degree 0 draw, too, so that a second call from the same state repeats every draw.
        rows = torch.nonzero(kinds == index)[:, 0]
        if len(rows):
            spoiled[rows] = degradation(frames[rows], degrees[rows], generator).clamp(0, 1)
    return torch.where(_column(degrees) > 0, spoiled, frames)


def blur(frames: Tensor, degrees: Tensor, generator: Generator) -> Tensor:
    """Blur by up to 2.5 pixels (Gaussian)."""
    return gaussian_blur(frames, 0.3 + 2.2 * degrees)


def gaussian_blur(frames: Tensor, sigmas: Tensor) -> Tensor:
    """Blur each frame with its own sigma (pixels) and repeated edges."""
    radius = 7
    place = torch.arange(-radius, radius + 1, dtype=frames.dtype)
    kernel = torch.exp(-0.5 * (place / sigmas[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)
    n, _, height, width = frames.shape
    x = F.pad(frames, [radius] * 4, mode="replicate").flatten(0, 1)[None]
    x = F.conv2d(x, kernel[:, None, None, :], groups=3 * n)
    x = F.conv2d(x, kernel[:, None, :, None], groups=3 * n)
    return x.reshape(n, 3, height, width)


def noise(frames: Tensor, degrees: Tensor, generator: Generator) -> Tensor:
    """Add white noise of up to 0.25."""
    return frames + 0.25 * _column(degrees) * torch.randn(frames.shape, generator=generator)


def warp(frames: Tensor, degrees: Tensor, generator: Generator) -> Tensor:
    """Displace pixels smoothly by up to about 5 pixels: wobbly outlines."""
    n, _, height, width = frames.shape
    knots = torch.randn((n, 2, 7, 7), generator=generator)
    field = F.interpolate(knots, size=(height, width), mode="bicubic", align_corners=True)
    shift = field * _column(0.5 + 2.5 * degrees)
    return _displaced(frames, shift[:, 0], shift[:, 1])


def fade(frames: Tensor, degrees: Tensor, generator: Generator) -> Tensor:
    """Fade all colours towards one grey."""
    grey = frames.mean(dim=(1, 2, 3), keepdim=True)
    return frames + 0.85 * _column(degrees) * (grey - frames)


def desaturate(frames: Tensor, degrees: Tensor, generator: Generator) -> Tensor:
    """Fade each colour towards its own grey; contrast stays."""
    grey = frames.mean(dim=1, keepdim=True)
    return frames + 0.9 * _column(degrees) * (grey - frames)


def ghost(frames: Tensor, degrees: Tensor, generator: Generator) -> Tensor:
    """Add a second, half-transparent copy 4 to 16 pixels away."""
    dx, dy = _directions(len(frames), generator, 4, 16)
    share = _column(0.1 + 0.4 * degrees)
    return (1 - share) * frames + share * _displaced(frames, dx, dy)


def smear(frames: Tensor, degrees: Tensor, generator: Generator) -> Tensor:
    """Blur along a direction over up to 10 pixels (motion blur)."""
    dx, dy = _directions(len(frames), generator, 1, 1)
    length = (1 + 9 * degrees)[:, None, None]
    copies = [_displaced(frames, t * length * dx, t * length * dy) for t in _taps(7)]
    return torch.stack(copies).mean(dim=0)


def tint(frames: Tensor, degrees: Tensor, generator: Generator) -> Tensor:
    """Add a smooth random colour field: patches of other colours."""
    n, _, height, width = frames.shape
    knots = torch.randn((n, 3, 5, 5), generator=generator)
    field = F.interpolate(knots, size=(height, width), mode="bicubic", align_corners=True)
    return frames + 0.35 * _column(degrees) * field


def grid(frames: Tensor, degrees: Tensor, generator: Generator) -> Tensor:
    """Add a pattern of period 8 or 4, as from compression or a reward's gradient."""
    n, _, height, width = frames.shape
    tile = torch.randn((n, 3, 8, 8), generator=generator)
    small = torch.rand((n, 1, 1, 1), generator=generator) < 0.5
    tile = torch.where(small, tile[..., :4, :4].repeat(1, 1, 2, 2), tile)
    pattern = tile.repeat(1, 1, math.ceil(height / 8), math.ceil(width / 8))
    return frames + 0.25 * _column(degrees) * pattern[..., :height, :width]


def bite(frames: Tensor, degrees: Tensor, generator: Generator) -> Tensor:
    """Cover a part of the frame with a soft blob in the colour of the corners: missing pieces."""
    n, _, height, width = frames.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.rand((n, 2, 1, 1), generator=generator) * 0.6 + 0.2
    radius = (2 + 6 * degrees)[:, None, None]
    distance = torch.hypot(x - place[:, 0] * width, y - place[:, 1] * height)
    share = torch.sigmoid(radius - distance)[:, None]
    colour = frames[:, :, :: height - 1, :: width - 1].mean(dim=(2, 3), keepdim=True)
    return (1 - share) * frames + share * colour


DEGRADATIONS: dict[str, Degradation] = {
    "blur": blur,
    "noise": noise,
    "warp": warp,
    "fade": fade,
    "desaturate": desaturate,
    "ghost": ghost,
    "smear": smear,
    "tint": tint,
    "grid": grid,
    "bite": bite,
}


def jitter(frames: Tensor, generator: Generator) -> Tensor:
    """Vary frames slightly, so that a judge does not depend on exact pixels.

    Half a pixel of blur, noise of up to 0.03, brightness and contrast within 6 %.
    """
    n = len(frames)
    draw = torch.rand((4, n), generator=generator)
    x = gaussian_blur(frames, 0.2 + 0.5 * draw[0])
    x = (x - 0.5) * _column(0.94 + 0.12 * draw[1]) + 0.5 + _column(0.06 * draw[2] - 0.03)
    strength = _column(0.03 * draw[3])
    return (x + strength * torch.randn(x.shape, generator=generator)).clamp(0, 1)


def _column(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _taps(count: int) -> list[float]:
    return [i / (count - 1) - 0.5 for i in range(count)]


def _directions(n: int, generator: Generator, low: float, high: float) -> tuple[Tensor, Tensor]:
    angle = 2 * math.pi * torch.rand((n, 1, 1), generator=generator)
    length = low + (high - low) * torch.rand((n, 1, 1), generator=generator)
    return length * torch.cos(angle), length * torch.sin(angle)


def _displaced(frames: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """Sample at (x + dx, y + dy), with displacements in pixels, `(n, H or 1, W or 1)`."""
    _, _, height, width = frames.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    gx = (2 * (x + dx) + 1) / width - 1
    gy = (2 * (y + dy) + 1) / height - 1
    places = torch.stack(torch.broadcast_tensors(gx, gy), dim=-1)
    return F.grid_sample(frames, places, padding_mode="border", align_corners=False)
