"""Paths of a shape through a clip, for control clips."""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

from base_model.tiny.render import DIRECTIONS, ShapePath, Staging, straight_path
from base_model.tiny.scenes import FRAMES, SIDE, Scene

FREE_SHARE = 0.6
"""Share of the paths that differ from the straight paths of the text-to-video training."""

MOST_TURN = 60.0
"""Largest turn of a bent path over the clip, in degrees."""

MOST_ASIDE = 45.0
"""Largest angle between a free path and the direction of its word, in degrees."""

SLOWEST, FASTEST, REST = 0.8, 2.3, 0.5
"""Pixels per frame: limits of free paths, and the largest speed that counts as resting."""


def draw_path(scene: Scene, staging: Staging, rng: random.Random) -> ShapePath:
    """Draw a path that the scene's motion word still describes.

    Four in ten are the staging's own straight path; the others deviate by up to 45 degrees from the
    word's direction, at another speed, half of them bent.

    Args:
        scene: Scene with the motion word.
        staging: Size of the shape, and the straight path.
        rng: Random generator.
    """
    if rng.random() >= FREE_SHARE:
        return straight_path(staging)
    dx, dy = DIRECTIONS[scene.motion]
    if scene.motion == "still":
        angle, speed, turn = rng.uniform(-math.pi, math.pi), rng.uniform(0.0, REST), 0.0
    else:
        angle = math.atan2(dy, dx) + math.radians(rng.uniform(-MOST_ASIDE, MOST_ASIDE))
        speed = rng.uniform(SLOWEST, FASTEST)
        turn = math.radians(rng.uniform(-MOST_TURN, MOST_TURN)) if rng.random() < 0.5 else 0.0
    time = torch.arange(FRAMES - 1, dtype=torch.float32) + 0.5
    headings = angle + turn * (time / (FRAMES - 1) - 0.5)
    steps = speed * torch.stack([headings.cos(), headings.sin()], dim=1)
    way = torch.cat([torch.zeros(1, 2), steps.cumsum(dim=0)])
    return ShapePath(way + draw_start(way, staging.radius, rng), staging.radius)


def draw_start(way: Tensor, radius: float, rng: random.Random) -> Tensor:
    """Draw a start that keeps the shape in the picture; the middle if there is none.

    Args:
        way: (f, 2) pixels, relative to the start.
        radius: Radius of the shape in pixels.
        rng: Random generator.

    Returns:
        (2,) pixels.
    """
    reach = 1.2 * radius + 2.0
    start = []
    for axis in way.unbind(dim=1):
        low, high = reach - axis.min().item(), SIDE - reach - axis.max().item()
        middle = (low + high) / 2
        start.append(rng.uniform(min(low, middle), max(high, middle)))
    return torch.tensor(start)
