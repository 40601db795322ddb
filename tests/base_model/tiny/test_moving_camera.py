"""What a moving camera sees, against the pinhole camera's own formula and the oracle."""

import math
import random
from dataclasses import replace

import pytest
import torch

from base_model.conditions.camera import plucker_rays
from base_model.conditions.camera_motions import motion_poses
from base_model.tiny.moving_camera import (
    DEPTH,
    PANS,
    camera_clip,
    draw_camera_clip,
    draw_motion,
    seen_path,
)
from base_model.tiny.oracle import recognise_clip
from base_model.tiny.render import Staging, draw_staging
from base_model.tiny.scenes import FRAMES, SIDE, Scene, draw_scenes

SCENE = Scene("red", "circle", "dark", "small", "still")
FOCAL = 0.844111024 * SIDE  # the presets' fy, which fills a square clip's height

STAGING: Staging = replace(draw_staging(SCENE, random.Random(0)), radius=6.0)


def test_a_camera_at_rest_sees_the_shape_where_it_is() -> None:
    path = seen_path(STAGING, (20.0, 30.0), motion_poses("static", FRAMES))
    assert torch.allclose(path.centres, torch.tensor([20.0, 30.0]).expand(FRAMES, 2))
    assert torch.allclose(torch.as_tensor(path.radii), torch.full((FRAMES,), 6.0))


def test_a_pan_shifts_by_the_focal_length_over_the_depth() -> None:
    """At frame i of 9 the camera has gone i/9 of 1.5 units to the left."""
    path = seen_path(STAGING, (20.0, 30.0), motion_poses("pan left", FRAMES))
    i = torch.arange(FRAMES)
    expected = 20.0 + FOCAL * 1.5 * i / FRAMES / DEPTH
    assert torch.allclose(path.centres[:, 0], expected, atol=1e-3)
    assert torch.allclose(path.centres[:, 1], torch.tensor(30.0), atol=1e-3)
    assert path.centres[-1, 0] - 20.0 == pytest.approx(16.0, abs=0.1)


def test_a_zoom_in_enlarges_about_the_middle() -> None:
    path = seen_path(STAGING, (20.0, 32.0), motion_poses("zoom in", FRAMES, 0.4))
    grown = DEPTH / (DEPTH - 0.4 * 3.0 * torch.arange(FRAMES) / FRAMES)
    assert torch.allclose(torch.as_tensor(path.radii), 6.0 * grown, atol=1e-3)
    assert torch.allclose(path.centres[:, 0] - SIDE / 2, -12.0 * grown, atol=1e-3)


def test_the_shapes_own_motion_adds_up_with_the_cameras() -> None:
    moving = replace(STAGING, velocity=(-2.0, 0.0))
    both = seen_path(moving, (40.0, 30.0), motion_poses("pan left", FRAMES)).centres
    camera = seen_path(STAGING, (40.0, 30.0), motion_poses("pan left", FRAMES)).centres
    steps = torch.arange(FRAMES)
    assert torch.allclose(both[:, 0], camera[:, 0] - 2.0 * steps, atol=1e-3)


@pytest.mark.parametrize("motion", PANS)
def test_the_picture_goes_the_other_way(motion: str) -> None:
    clip = camera_clip(SCENE, motion, 1.0, random.Random(motion))
    opposite = {"left": "right", "right": "left", "up": "down", "down": "up"}
    reading = recognise_clip(clip.frames)
    assert reading.words["motion"] == opposite[motion.removeprefix("pan ")]
    assert math.hypot(*reading.velocity) == pytest.approx(2.0, abs=0.2)


def test_the_backdrop_is_infinitely_far_away() -> None:
    striped = replace(SCENE, background="striped")
    clip = camera_clip(striped, "pan left", 1.0, random.Random(4))
    assert recognise_clip(clip.frames).words["background"] == "striped"
    still = clip.frames.std(dim=0).amax(dim=0) < 1e-6
    assert still.float().mean() > 0.5


def test_rays_are_those_of_the_motion() -> None:
    clip = camera_clip(SCENE, "pan up", 0.7, random.Random(5))
    rays = plucker_rays(motion_poses("pan up", FRAMES, 0.7), SIDE, SIDE)
    assert clip.rays.shape == (6, FRAMES, SIDE, SIDE)
    assert torch.equal(clip.rays, rays.permute(3, 0, 1, 2))


def test_drawn_clips_keep_small_shapes_in_the_picture() -> None:
    rng = random.Random(6)
    for scene in draw_scenes(30, rng):
        small = replace(scene, size="small", motion="still")
        assert recognise_clip(draw_camera_clip(small, rng).frames).words["colour"] == small.colour


def test_every_motion_is_drawn_and_no_roll() -> None:
    rng = random.Random(7)
    drawn = {draw_motion(rng)[0] for _ in range(500)}
    assert {*PANS, "zoom in", "zoom out", "static", "pan left and pan up"} <= drawn
    assert not any("roll" in motion for motion in drawn)
