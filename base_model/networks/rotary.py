"""The rotary position table EasyAnimateV5.1 was trained with, for every aspect ratio.

A video's token grid is scaled to fit into a base grid of 45 x 30 tokens, centred and with its
aspect ratio kept. Position `i` of `n` along an axis from `start` to `stop` is `start + i * (stop -
start) / n`. (diffusers >= 0.32 computes `linspace(start, stop * (n - 1) / n, n)`, which is the same
only if `start` is 0, that is for 3:2.)
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

BASE_HEIGHT, BASE_WIDTH = 60, 90
"""Size of the base grid in latents, before patches."""

THETA = 10000.0  # base of the rotary frequencies, as published
KEPT_TABLES = 8
"""Number of cached tables, one for each shape; bucketed training alternates between a few."""


def placed_region(
    grid: tuple[int, int], base: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the region of a token grid in the base grid: scaled to fit, centred, same aspect.

    Args:
        grid: (height, width) of the video in tokens.
        base: (height, width) of the base grid in tokens.

    Returns:
        `((top, left), (bottom, right))` in base tokens.
    """
    (height, width), (base_height, base_width) = grid, base
    if height / width > base_height / base_width:
        fitted_height, fitted_width = base_height, round(base_height / height * width)
    else:
        fitted_height, fitted_width = round(base_width / width * height), base_width
    top = round((base_height - fitted_height) / 2)
    left = round((base_width - fitted_width) / 2)
    return (top, left), (top + fitted_height, left + fitted_width)


def positions(start: float, stop: float, count: int) -> Tensor:
    """Return `start + i * (stop - start) / count` for i = 0 ... count - 1, float32 `(count,)`."""
    steps = torch.arange(count, dtype=torch.float64, device="cpu")
    return (start + steps * ((stop - start) / count)).to(torch.float32)


def _axis_angles(position: Tensor, dim: int) -> Tensor:
    """Return the angles of one axis, `(n, dim)`: each frequency twice, for a complex pair."""
    exponents = torch.arange(0, dim, 2, dtype=torch.float32, device="cpu") / dim
    frequencies = 1.0 / THETA**exponents
    return torch.outer(position, frequencies).repeat_interleave(2, dim=1)


def rotary_table(
    frames: int, height: int, width: int, head_dim: int, patch_size: int = 2
) -> tuple[Tensor, Tensor]:
    """Return cosines and sines for every video token, in the order frame, row, column.

    A quarter of each head's channels encodes time and three eighths each row and column
    (RoPE, Su et al. 2021, arXiv:2104.09864, per axis).

    Args:
        frames: Latent frames.
        height: Latent height.
        width: Latent width.
        head_dim: Channels of one attention head, a multiple of 16.
        patch_size: Latents per token along each axis.

    Returns:
        `(cos, sin)`, each float32 `(frames * height/p * width/p, head_dim)` on the CPU.
    """
    rows, columns = height // patch_size, width // patch_size
    base = (BASE_HEIGHT // patch_size, BASE_WIDTH // patch_size)
    (top, left), (bottom, right) = placed_region((rows, columns), base)
    time = _axis_angles(positions(0, frames, frames), head_dim // 4)
    row = _axis_angles(positions(top, bottom, rows), head_dim // 8 * 3)
    column = _axis_angles(positions(left, right, columns), head_dim // 8 * 3)
    grid = (frames, rows, columns)
    angles = torch.cat(
        [
            time[:, None, None].expand(*grid, -1),
            row[None, :, None].expand(*grid, -1),
            column[None, None, :].expand(*grid, -1),
        ],
        dim=-1,
    ).reshape(frames * rows * columns, -1)
    return angles.cos(), angles.sin()


class PublishedRotary(nn.Module):
    """Replacement for diffusers' `rope_embedding`: the published grid, cached by shape and device.

    diffusers rebuilds the table on the CPU in every forward pass and copies it to the device in
    every block; here it is built once on the device.
    """

    def __init__(self, head_dim: int, patch_size: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.patch_size = patch_size
        self._tables: OrderedDict[tuple[object, ...], tuple[Tensor, Tensor]] = OrderedDict()

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """Return (cos, sin) for latents `(b, c, t, h, w)`, float32 `(tokens, head_dim)`."""
        frames, height, width = hidden_states.shape[-3:]
        key = (frames, height, width, hidden_states.device)
        if key not in self._tables:
            # A table made under inference_mode could not be used in a later backward pass.
            with torch.inference_mode(False), torch.no_grad():
                cos, sin = rotary_table(frames, height, width, self.head_dim, self.patch_size)
                device = hidden_states.device
                self._tables[key] = (cos.to(device), sin.to(device))
            if len(self._tables) > KEPT_TABLES:
                self._tables.popitem(last=False)
        self._tables.move_to_end(key)
        return self._tables[key]
