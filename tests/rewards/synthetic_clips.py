"""Clips whose motion is known: stills, pans, noise, flicker, cuts."""

from __future__ import annotations

import torch
from torch import Tensor

FRAMES = 9


def texture(side: int = 128, seed: int = 0) -> Tensor:
    """A picture with the spectrum of photographs (amplitude 1/frequency), ``(3, side, side)``.

    It is periodic, so a pan that rolls it round has no seam.
    """
    draw = torch.Generator().manual_seed(seed)
    frequency = torch.hypot(torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None])
    frequency[0, 0] = torch.inf
    spectrum = torch.fft.rfft2(torch.randn(3, side, side, generator=draw)) / frequency
    picture = torch.fft.irfft2(spectrum, s=(side, side))
    return (0.5 + 0.15 * picture / picture.std()).clamp(0.1, 0.9)


def still(side: int = 128) -> Tensor:
    """``(1, f, 3, side, side)``."""
    return texture(side).expand(1, FRAMES, -1, -1, -1)


def pan(speed: int, side: int = 128, axis: int = -1) -> Tensor:
    """The still's picture, so many pixels further in each frame."""
    picture = texture(side)
    return torch.stack([picture.roll(speed * time, axis) for time in range(FRAMES)])[None]


def noisy(amount: float = 0.05, side: int = 128) -> Tensor:
    """A still with new noise in every frame."""
    draw = torch.Generator().manual_seed(1)
    clip = still(side)
    return (clip + amount * torch.randn(clip.shape, generator=draw)).clamp(0, 1)


def signs() -> Tensor:
    """+1 and -1 in turn, over time."""
    return torch.tensor([1.0, -1.0] * FRAMES)[:FRAMES].view(FRAMES, 1, 1, 1)


def flickering(amount: float = 0.05, side: int = 128) -> Tensor:
    """A still whose brightness goes up and down from frame to frame."""
    return still(side) + amount * signs()


def there_and_back(side: int = 128) -> Tensor:
    """Two pictures in turn, alike but for a fifth of another: a flicker of mean brightness 0."""
    return still(side) + 0.2 * signs() * (texture(side, seed=77) - 0.5)


def unrelated(side: int = 128) -> Tensor:
    """Another picture in every frame."""
    return torch.stack([texture(side, seed=10 + time) for time in range(FRAMES)])[None]


def cut(side: int = 128) -> Tensor:
    """A still, and from the middle on another."""
    clip = still(side).clone()
    clip[:, FRAMES // 2 :] = texture(side, seed=99)
    return clip
