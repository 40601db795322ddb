"""Sharpness against second differences in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rewards.kinds.sharpness import Sharpness, laplacian_variance
from tests.rewards.synthetic_clips import texture


def test_sharpness_against_second_differences() -> None:
    images = torch.stack([texture(32, seed) for seed in range(3)])
    grey = 255 * (images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1)
    expected = []
    for image in grey.double().numpy():
        wide = np.pad(image, 1, mode="reflect")
        bend = np.diff(wide, 2, axis=0)[:, 1:-1] + np.diff(wide, 2, axis=1)[1:-1]
        expected.append(float(bend.var()))
    assert laplacian_variance(images).tolist() == pytest.approx(expected, rel=1e-4)
    score = Sharpness()(images[None].requires_grad_(), ["-"])
    assert score.tolist() == [pytest.approx(sum(expected) / 3, rel=1e-4)]
    assert not score.requires_grad
    blurred = torch.nn.functional.avg_pool2d(images, 3, stride=1)
    assert float(Sharpness()(blurred[None], ["-"])) < float(score) / 2


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (5, 1), (2, 2), (1, 2)])
def test_sharpness_of_frames_of_a_few_pixels(height: int, width: int) -> None:
    images = torch.rand(2, 3, height, width)
    grey = 255 * (images * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1)
    expected = []
    for image in grey.double().numpy():
        edges = []
        for y in range(height):
            for x in range(width):
                # Beyond an edge lies the mirror image; of one pixel, itself.
                down = min(height - 1, 1) if y == 0 else y - 1
                up = max(height - 2, 0) if y == height - 1 else y + 1
                right = min(width - 1, 1) if x == 0 else x - 1
                left = max(width - 2, 0) if x == width - 1 else x + 1
                around = image[down, x] + image[up, x] + image[y, right] + image[y, left]
                edges.append(around - 4 * image[y, x])
        expected.append(float(np.var(edges)))
    found = laplacian_variance(images).tolist()
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert Sharpness()(images[None], ["-"]).item() == pytest.approx(
        sum(expected) / 2, rel=1e-4, abs=1e-4
    )
    if height == width == 1:
        assert found == [0.0, 0.0]
