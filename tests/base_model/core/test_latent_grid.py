"""Maps on the grid of the latents: the first frame alone, then means of the middle frames."""

import torch

from base_model.core.latent_grid import to_latent_grid


def test_a_latent_has_the_mean_of_the_middle_two_of_its_frames() -> None:
    maps = torch.arange(9.0).view(1, 1, 9, 1, 1).expand(1, 1, 9, 16, 16)
    grid = to_latent_grid(maps, (3, 2, 2))
    assert grid.shape == (1, 1, 3, 2, 2)
    # Frame 0; the mean of 2 and 3 of frames 1 to 4; the mean of 6 and 7 of frames 5 to 8.
    assert grid[0, 0, :, 0, 0].tolist() == [0.0, 2.5, 6.5]


def test_a_cell_has_the_mean_of_its_middle_pixels() -> None:
    row = torch.arange(16.0).expand(16, 16)
    grid = to_latent_grid(row[None, None, None], (1, 2, 2))
    assert grid[0, 0, 0, 0].tolist() == [3.5, 11.5]
    assert torch.equal(grid[0, 0, 0, 0], grid[0, 0, 0, 1])


def test_gradients_reach_the_maps() -> None:
    maps = torch.rand(1, 1, 5, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(to_latent_grid(maps, (2, 1, 1)).sum(), maps)
    assert float(gradient.sum()) == 2.0
    assert gradient.flatten(2).sum(dim=(0, 1)).view(5, -1).sum(dim=1).tolist() == [
        1,
        0,
        0.5,
        0.5,
        0,
    ]
