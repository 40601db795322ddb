"""Paths of shapes: within their words and the picture, and where the render shows them."""

import math
import random

import pytest
import torch

from base_model.tiny.oracle import STILL_SPEED, centres, soft_mask
from base_model.tiny.paths import MOST_ASIDE, MOST_TURN, draw_path
from base_model.tiny.render import DIRECTIONS, draw_staging, render_staged, straight_path
from base_model.tiny.scenes import SIDE, Scene

LEFT = Scene("red", "circle", "dark", "small", "left")
STILL = Scene("red", "circle", "dark", "small", "still")


@pytest.mark.parametrize("motion", list(DIRECTIONS))
def test_a_path_is_what_its_word_says(motion: str) -> None:
    scene = Scene("red", "circle", "dark", "small", motion)
    rng = random.Random(motion)
    for _ in range(200):
        staging = draw_staging(scene, rng)
        way = draw_path(scene, staging, rng).centres.diff(dim=0)
        speed = way.norm(dim=1)
        if motion == "still":
            assert speed.max() < STILL_SPEED
            continue
        aside = math.radians(MOST_ASIDE + MOST_TURN / 2)
        towards = way @ torch.tensor(DIRECTIONS[motion])
        assert (towards >= speed * math.cos(aside) - 1e-4).all()
        assert speed.min() > 0.79
        assert speed.max() < 2.31


def test_small_shapes_stay_in_the_picture() -> None:
    rng = random.Random(0)
    for _ in range(200):
        staging = draw_staging(LEFT, rng)
        centre = draw_path(LEFT, staging, rng).centres
        assert centre.min() - staging.radius > 0
        assert centre.max() + staging.radius < SIDE


def test_the_render_follows_the_path() -> None:
    rng = random.Random(1)
    bent = 0
    for _ in range(20):
        staging = draw_staging(LEFT, rng)
        path = draw_path(LEFT, staging, rng)
        seen = centres(soft_mask(render_staged(LEFT, staging, path)))
        assert (seen - path.centres).norm(dim=1).max() < 0.3
        bent += (path.centres.diff(dim=0).std(dim=0) > 0.05).any().item()
    assert bent >= 2


def test_the_straight_path_is_the_render_without_one() -> None:
    staging = draw_staging(LEFT, random.Random(2))
    plain = render_staged(LEFT, staging)
    assert torch.equal(plain, render_staged(LEFT, staging, straight_path(staging)))
    seen = centres(soft_mask(plain))
    start = torch.tensor(staging.centre)
    for i, centre in enumerate(seen):
        assert (centre - start - i * torch.tensor(staging.velocity)).norm() < 0.3


def test_three_in_five_paths_are_free() -> None:
    rng = random.Random(3)
    free = 0
    for _ in range(400):
        staging = draw_staging(STILL, rng)
        moved = draw_path(STILL, staging, rng).centres.diff(dim=0).norm(dim=1).max()
        free += (moved > 0).item()
    assert free / 400 == pytest.approx(0.6, abs=0.08)  # deviation 0.024
