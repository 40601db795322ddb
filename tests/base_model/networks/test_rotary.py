import math

import numpy as np
import pytest
import torch
from diffusers.models.embeddings import get_3d_rotary_pos_embed

from base_model.networks.rotary import (
    KEPT_TABLES,
    PublishedRotary,
    placed_region,
    positions,
    rotary_table,
)


def diffusers_table(
    frames: int, height: int, width: int, head_dim: int
) -> tuple[torch.Tensor, ...]:
    grid = (height // 2, width // 2)
    return get_3d_rotary_pos_embed(head_dim, placed_region(grid, (30, 45)), grid, frames)


@pytest.mark.parametrize("size", [(60, 90), (48, 72), (32, 48)])
def test_for_3_to_2_the_library_is_right(size: tuple[int, int]) -> None:
    for ours, theirs in zip(rotary_table(3, *size, 64), diffusers_table(3, *size, 64), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize("size", [(32, 32), (48, 32), (24, 64)])
def test_each_entry_of_other_shapes(size: tuple[int, int]) -> None:
    """Entry by entry from the formula, with numpy's endpoint-free linspace as the original has."""
    frames, head_dim, rows, columns = 3, 32, size[0] // 2, size[1] // 2
    (top, left), (bottom, right) = placed_region((rows, columns), (30, 45))
    places = (
        np.linspace(0, frames, frames, endpoint=False),
        np.linspace(top, bottom, rows, endpoint=False),
        np.linspace(left, right, columns, endpoint=False),
    )
    cos, sin = rotary_table(frames, *size, head_dim)
    widths = (8, 12, 12)
    for token in (0, 1, columns, rows * columns + 3, frames * rows * columns - 1):
        index = (token // (rows * columns), token // columns % rows, token % columns)
        expected = [
            places[axis][index[axis]] / 10000 ** (2 * (i // 2) / widths[axis])
            for axis in range(3)
            for i in range(widths[axis])
        ]
        assert cos[token].tolist() == pytest.approx([math.cos(a) for a in expected], abs=1e-5)
        assert sin[token].tolist() == pytest.approx([math.sin(a) for a in expected], abs=1e-5)


def test_the_library_is_far_off_for_a_square() -> None:
    """What the correction is for: when this fails, upstream has changed its grid."""
    pairs = zip(rotary_table(1, 32, 32, 64), diffusers_table(1, 32, 32, 64), strict=True)
    assert max((ours - theirs).abs().max().item() for ours, theirs in pairs) > 0.45


@pytest.mark.parametrize(
    ("grid", "region"),
    [
        ((16, 16), ((0, 8), (30, 38))),  # square: height fits, centred
        ((30, 45), ((0, 0), (30, 45))),
        ((16, 32), ((4, 0), (26, 45))),  # wide: (30 - 22) / 2
        ((48, 32), ((0, 12), (30, 32))),  # portrait: (45 - 20) / 2 = 12.5 rounds to even
    ],
)
def test_where_a_grid_lies(grid: tuple[int, int], region: tuple[tuple[int, int], ...]) -> None:
    assert placed_region(grid, (30, 45)) == region


def test_positions_do_not_reach_the_end() -> None:
    assert positions(8, 38, 4).tolist() == [8.0, 15.5, 23.0, 30.5]


def test_the_table_is_made_once_per_shape() -> None:
    rotary = PublishedRotary(16, 2)
    first = rotary(torch.zeros(2, 16, 3, 8, 8))
    assert rotary(torch.zeros(1, 33, 3, 8, 8)) is first
    for kept, made in zip(first, rotary_table(3, 8, 8, 16, 2), strict=True):
        assert torch.equal(kept, made)
    assert rotary(torch.zeros(1, 33, 3, 8, 12)) is not first
    for height in range(2, 2 + 2 * KEPT_TABLES, 2):
        rotary(torch.zeros(1, 16, 1, height, 4))
    assert len(rotary._tables) == KEPT_TABLES
    assert rotary(torch.zeros(2, 16, 3, 8, 8)) is not first


def test_a_table_made_under_inference_mode_serves_training() -> None:
    rotary = PublishedRotary(16, 2)
    with torch.inference_mode():
        rotary(torch.zeros(1, 16, 1, 4, 4))
    x = torch.ones(4, 16, requires_grad=True)
    cos, _ = rotary(torch.zeros(1, 16, 1, 4, 4))
    (x * x * cos).sum().backward()
    torch.testing.assert_close(x.grad, 2 * cos)
