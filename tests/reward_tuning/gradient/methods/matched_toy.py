"""A toy velocity with parameters, float64, for the objectives of methods that match clips."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLIPS, SHAPE = 6, (3, 4)
ADVANTAGES = torch.tensor([1.3, -0.4, -2.0, 0.7, 0.0, 0.4], dtype=torch.float64)


class Toy(nn.Module):
    """v = sin(x W + s) U, another one for each seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        size = SHAPE[0] * SHAPE[1]
        self.w = nn.Parameter(0.4 * torch.randn(size, 8, generator=draw, dtype=torch.float64))
        self.u = nn.Parameter(0.4 * torch.randn(8, size, generator=draw, dtype=torch.float64))

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        return (torch.sin(x.flatten(1) @ self.w + s[:, None]) @ self.u).view_as(x)


def points() -> tuple[Tensor, Tensor, Tensor]:
    """x_s, u = e - x, and s of six clips."""
    draw = torch.Generator().manual_seed(3)
    x, e = (torch.randn(CLIPS, *SHAPE, generator=draw, dtype=torch.float64) for _ in range(2))
    s = torch.linspace(0.1, 0.9, CLIPS, dtype=torch.float64)
    at = s[:, None, None]
    return (1 - at) * x + at * e, e - x, s


def gradient(toy: Toy, loss: Tensor) -> Tensor:
    found = torch.autograd.grad(loss, list(toy.parameters()))
    return torch.cat([one.flatten() for one in found])


def relative(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).norm() / expected.norm())
