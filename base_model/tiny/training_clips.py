"""Clips for the training of the embedded generator: batches, cached clips, two lessons on shape."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from base_model.tiny.render import draw_staging, render, render_staged
from base_model.tiny.scenes import FRAMES, SIDE, Scene, draw_scenes
from base_model.tiny.scenes import scenes as every_scene
from base_model.training.loop import python_random

IMAGE_BATCH = 8
CLIP_BATCH = 4
ENCODED_AT_ONCE = 50
LESSON_CLIPS = 2000


def image_batch(generator: torch.Generator) -> Tensor:
    """Render new clips and return two frames of each, (IMAGE_BATCH, 1, 3, 64, 64)."""
    rng = python_random(generator)
    clips = render(draw_scenes(IMAGE_BATCH // 2, rng), rng)
    first, last = rng.randint(0, 3), rng.randint(4, 8)
    return torch.cat([clips[:, first : first + 1], clips[:, last : last + 1]])


def clip_batch(generator: torch.Generator) -> Tensor:
    """Render new clips, (CLIP_BATCH, 9, 3, 64, 64)."""
    rng = python_random(generator)
    return render(draw_scenes(CLIP_BATCH, rng), rng)


DrawClips = Callable[[random.Random], tuple[list[Scene], Tensor]]
"""Draws ENCODED_AT_ONCE scenes and renders their clips."""


def draw_any_clips(rng: random.Random) -> tuple[list[Scene], Tensor]:
    """Draw ENCODED_AT_ONCE scenes and render their clips."""
    scenes = draw_scenes(ENCODED_AT_ONCE, rng)
    return scenes, render(scenes, rng)


def draw_still_shapes(rng: random.Random) -> tuple[list[Scene], Tensor]:
    """Draw ENCODED_AT_ONCE scenes of large shapes at rest in the middle and render their clips.

    Place and motion account for most of what noise hides, and the kind of shape for very little:
    after 2,600 steps the error did not depend on the shape's word at any noise level, although
    every other word had been learned long before. Here only the shape is left to guess.
    """
    large = [s for s in every_scene("train") if s.size == "large" and s.motion == "still"]
    scenes = rng.choices(large, k=ENCODED_AT_ONCE)
    return scenes, torch.stack([render_central(scene, rng, spread=1.0) for scene in scenes])


def draw_central_shapes(rng: random.Random) -> tuple[list[Scene], Tensor]:
    """Draw ENCODED_AT_ONCE scenes of any kind, within 4 pixels of the middle at half time."""
    scenes = draw_scenes(ENCODED_AT_ONCE, rng)
    return scenes, torch.stack([render_central(scene, rng, spread=4.0) for scene in scenes])


def render_central(scene: Scene, rng: random.Random, *, spread: float) -> Tensor:
    """Render a clip whose shape is within `spread` pixels of the middle at half time."""
    staging = draw_staging(scene, rng)
    centre = [
        SIDE / 2 + rng.uniform(-spread, spread) - v * (FRAMES - 1) / 2 for v in staging.velocity
    ]
    return render_staged(scene, replace(staging, centre=(centre[0], centre[1])))


@dataclass(frozen=True)
class Lesson:
    """Steps of a stage in which half of each batch comes from other clips."""

    name: str
    draw: DrawClips
    steps: range


LESSONS = {
    "transformer": Lesson("lessons", draw_still_shapes, range(2800, 4000)),
    "transformer-shapes": Lesson("second-lessons", draw_central_shapes, range(1500)),
}
