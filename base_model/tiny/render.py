"""Render scenes as anti-aliased clips.

Distances are signed distances to the outline in pixels; coverage is a linear ramp two and a half
pixels wide, so that edges survive an 8 x 8 compression. Shapes of one size have the same *area*
(that of a circle with the size's radius), so that size can be read whatever the shape.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from base_model.tiny.scenes import FRAMES, SHAPES, SIDE, Scene

HUES = {"red": 0.0, "yellow": 60.0, "green": 120.0, "cyan": 180.0, "blue": 240.0, "purple": 300.0}
RADII = {"small": 6.0, "medium": 9.0, "large": 13.0}
DIRECTIONS = {
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
    "still": (0.0, 0.0),
}
SPEED = 2.0
"""Pixels per frame, +-10 %: sixteen pixels over a clip."""

EDGE = 2.5
"""Width of the anti-aliasing ramp, in pixels."""

PERIOD = 16.0
"""Pixels of one period of stripes or checks."""

TONES = {
    "dark": (0.08, 0.2),
    "bright": (0.78, 0.92),
    "striped": (0.45, 0.55),
    "checkered": (0.45, 0.55),
}
"""Lowest and highest mean grey of each background, in [0, 1]."""

STAR_INNER = 0.5
"""Inner over outer radius of the five-pointed star."""


@dataclass(frozen=True)
class Staging:
    """Everything in a clip that its scene leaves open.

    Lengths are in pixels, `angle` in radians, `hue_shift` in degrees, tones in [0, 1].
    """

    radius: float
    centre: tuple[float, float]
    velocity: tuple[float, float]
    angle: float
    hue_shift: float
    saturation: float
    brightness: float
    tone: float
    contrast: float
    phase: tuple[float, float]
    pebbles: tuple[tuple[float, float, float, float], ...]


def draw_staging(scene: Scene, rng: random.Random) -> Staging:
    """Draw size, place, speed, tint, background tone and grey clutter within a scene's words."""
    radius = RADII[scene.size] * rng.uniform(0.94, 1.06)
    dx, dy = DIRECTIONS[scene.motion]
    speed = SPEED * rng.uniform(0.9, 1.1)
    reach = 1.2 * radius + 2.0
    travel = speed * (FRAMES - 1)
    start = []
    for d in (dx, dy):
        low, high = reach - min(0.0, d * travel), SIDE - reach - max(0.0, d * travel)
        middle = (low + high) / 2
        low, high = min(low, middle), max(high, middle)
        start.append(rng.uniform(low, high))
    return Staging(
        radius=radius,
        centre=(start[0], start[1]),
        velocity=(dx * speed, dy * speed),
        angle=math.radians(rng.uniform(-12.0, 12.0)),
        hue_shift=rng.uniform(-8.0, 8.0),
        saturation=rng.uniform(0.8, 0.95),
        brightness=rng.uniform(0.85, 1.0),
        tone=rng.uniform(*TONES[scene.background]),
        contrast=rng.uniform(0.12, 0.18),
        phase=(rng.uniform(-2.0, 2.0), rng.uniform(-2.0, 2.0)),
        pebbles=tuple(
            (
                rng.uniform(2.0, SIDE - 2.0),
                rng.uniform(2.0, SIDE - 2.0),
                rng.uniform(1.5, 2.5),
                rng.uniform(-0.2, 0.2),
            )
            for _ in range(rng.randint(2, 4))
        ),
    )


def shape_distance(shape: str, x: Tensor, y: Tensor, radius: Tensor | float) -> Tensor:
    """Return the signed distance (negative inside) to a shape of area pi * radius**2 at the origin.

    Args:
        shape: A word of `SHAPES`.
        x: Pixels to the right of the centre, any shape.
        y: Pixels below the centre, same shape.
        radius: Radius of the circle of equal area, pixels.

    The distance is exact for the circle. For polygons it is the distance to the nearest edge line,
    which is exact near the outline, where it decides coverage.
    """
    if shape == "circle":
        return torch.sqrt(x * x + y * y + 1e-9) - radius
    if shape == "square":
        half = radius * math.sqrt(math.pi) / 2
        return torch.maximum(x.abs(), y.abs()) - half
    if shape == "triangle":
        apothem = radius * math.sqrt(math.pi / (3 * math.sqrt(3)))
        c, s = math.cos(math.pi / 6), math.sin(math.pi / 6)
        return torch.maximum(y, torch.maximum(c * x - s * y, -c * x - s * y)) - apothem
    if shape == "star":
        points = 5
        step = math.pi / points
        outer = radius * math.sqrt(math.pi / (points * STAR_INNER * math.sin(step)))
        angle = torch.atan2(x, -y)
        sector = torch.remainder(angle + step, 2 * step) - step
        length = torch.sqrt(x * x + y * y + 1e-9)
        px, py = length * torch.cos(sector), length * torch.sin(sector).abs()
        # The edge from the tip (outer, 0) to the notch (inner cos, inner sin).
        ex = STAR_INNER * math.cos(step) - 1.0
        ey = STAR_INNER * math.sin(step)
        norm = math.hypot(ex, ey)
        return ((px - outer) * ey - py * ex) / norm
    raise ValueError(f"unknown shape {shape!r}; allowed: {', '.join(SHAPES)}")


def shape_coverage(
    shape: str,
    x: Tensor,
    y: Tensor,
    radius: Tensor | float,
) -> Tensor:
    """Return the share of each pixel that a shape covers, in [0, 1]."""
    return (0.5 - shape_distance(shape, x, y, radius) / EDGE).clamp(0.0, 1.0)


def background_pattern(background: str, phase: tuple[float, float]) -> Tensor:
    """Return the pattern of a background in [-1, 1], (SIDE, SIDE); zero for plain backgrounds."""
    y, x = pixel_grid()
    wave_x = torch.sin(2 * math.pi * (x + phase[0]) / PERIOD) * 2.5
    wave_y = torch.sin(2 * math.pi * (y + phase[1]) / PERIOD) * 2.5
    if background == "striped":
        return wave_x.clamp(-1, 1)
    if background == "checkered":
        return wave_x.clamp(-1, 1) * wave_y.clamp(-1, 1)
    return torch.zeros(SIDE, SIDE)


def pixel_grid() -> tuple[Tensor, Tensor]:
    """Return the pixel centres: y and x, each (SIDE, SIDE)."""
    line = torch.arange(SIDE, dtype=torch.float32) + 0.5
    y, x = torch.meshgrid(line, line, indexing="ij")
    return y, x


def hue_to_rgb(hue: float, saturation: float, brightness: float) -> Tensor:
    """Convert HSV (degrees, [0, 1], [0, 1]) to RGB in [0, 1], (3,)."""
    k = torch.remainder(torch.tensor([5.0, 3.0, 1.0]) + hue / 60.0, 6.0)
    ramp = torch.minimum(k, 4.0 - k).clamp(0.0, 1.0)
    return brightness * (1.0 - saturation * ramp)


@dataclass(frozen=True)
class ShapePath:
    """Place and size of a clip's shape in each frame.

    Attributes:
        centres: (FRAMES, 2), x and y in pixels.
        radii: (FRAMES,) pixels, or one number for all frames.
    """

    centres: Tensor
    radii: Tensor | float


def straight_path(staging: Staging) -> ShapePath:
    """Return the path at the staging's constant speed."""
    time = torch.arange(FRAMES, dtype=torch.float32)
    axes = [c + v * time for c, v in zip(staging.centre, staging.velocity, strict=True)]
    return ShapePath(torch.stack(axes, dim=1), staging.radius)


def render_staged(scene: Scene, staging: Staging, path: ShapePath | None = None) -> Tensor:
    """Render one clip, (FRAMES, 3, SIDE, SIDE) fp32 in [0, 1].

    Args:
        scene: Scene to show.
        staging: Everything that the scene leaves open.
        path: Path of the shape; None takes `straight_path`.
    """
    path = path or straight_path(staging)
    y, x = pixel_grid()
    ground = staging.tone + staging.contrast * background_pattern(scene.background, staging.phase)
    for px, py, r, shade in staging.pebbles:
        cover = (0.5 - (torch.hypot(x - px, y - py) - r) / EDGE).clamp(0.0, 1.0)
        ground = ground + cover * shade
    ground = ground.clamp(0.0, 1.0)
    dx = x - path.centres[:, 0, None, None]
    dy = y - path.centres[:, 1, None, None]
    radii = path.radii[:, None, None] if isinstance(path.radii, Tensor) else path.radii
    c, s = math.cos(staging.angle), math.sin(staging.angle)
    cover = shape_coverage(scene.shape, c * dx + s * dy, c * dy - s * dx, radii)
    hue = HUES[scene.colour] + staging.hue_shift
    colour = hue_to_rgb(hue, staging.saturation, staging.brightness)
    cover = cover[:, None]
    return (1.0 - cover) * ground + cover * colour[:, None, None]


def render(scenes: Sequence[Scene], rng: random.Random) -> Tensor:
    """Render one clip for each scene, each with its own staging.

    Returns:
        (b, FRAMES, 3, SIDE, SIDE) fp32 in [0, 1].
    """
    return torch.stack([render_staged(scene, draw_staging(scene, rng)) for scene in scenes])
