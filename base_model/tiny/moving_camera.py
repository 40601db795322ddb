"""The embedded world seen by a moving camera.

The shape rests (or moves) `DEPTH` units in front of the first camera. The backdrop is infinitely
far away, so a camera that only moves leaves it unchanged: a pan to the left shifts the shape to the
right, and a zoom in enlarges it and carries it away from the middle of the picture. No clip has a
roll: it would turn the backdrop, which the embedded VAE has never seen.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from base_model.conditions.camera import Poses, pixel_intrinsics, plucker_rays
from base_model.conditions.camera_motions import motion_poses
from base_model.tiny.render import ShapePath, Staging, draw_staging, render_staged
from base_model.tiny.scenes import FRAMES, SIDE, Scene

DEPTH = 4.5
"""Units from the first camera to the shape; a pan at speed 1 shifts it by 16 pixels in a clip."""

PANS = ("pan left", "pan right", "pan up", "pan down")
ZOOMS = ("zoom in", "zoom out")
PAN_SPEEDS = (0.5, 1.2)
ZOOM_SPEEDS = (0.15, 0.45)
TRIES = 40
MARGIN = 2.0


@dataclass(frozen=True)
class CameraClip:
    """A clip, the camera that took it, and the camera's motion in words.

    Attributes:
        frames: (FRAMES, 3, SIDE, SIDE) in [0, 1].
        motion: Text for `base_model.conditions.camera_motions.parse_motion`.
        speed: Speed of the motion.
        rays: (6, FRAMES, SIDE, SIDE), Plücker coordinates.
    """

    frames: Tensor
    motion: str
    speed: float
    rays: Tensor


def draw_motion(rng: random.Random) -> tuple[str, float]:
    """Draw a camera motion and its speed."""
    kind = rng.random()
    sideways, upright = rng.choice(PANS[:2]), rng.choice(PANS[2:])
    if kind < 0.42:
        return rng.choice(PANS), rng.uniform(*PAN_SPEEDS)
    if kind < 0.55:
        return f"{sideways} and {upright}", rng.uniform(*PAN_SPEEDS) * 0.8
    if kind < 0.75:
        return rng.choice(ZOOMS), rng.uniform(*ZOOM_SPEEDS)
    if kind < 0.85:
        first, second = rng.sample(PANS, 2)
        return f"{first} then {second}", rng.uniform(*PAN_SPEEDS) * 0.6
    return "static", 1.0


def seen_path(staging: Staging, start: tuple[float, float], poses: Poses) -> ShapePath:
    """Return the path of the shape as a moving camera sees it.

    Args:
        staging: Size and velocity of the shape, in pixels of the first picture.
        start: Centre in the first picture, in pixels.
        poses: (FRAMES, 19); the first is the identity.
    """
    table = torch.from_numpy(poses)
    intrinsics = torch.from_numpy(pixel_intrinsics(poses, SIDE, SIDE))
    focal, principal = intrinsics[:, :2], intrinsics[:, 2:]
    time = torch.arange(FRAMES, dtype=torch.float64)[:, None]
    velocity = torch.tensor([staging.velocity], dtype=torch.float64)
    at = torch.tensor([start], dtype=torch.float64) + velocity * time
    sideways = (at - principal[:1]) / focal[:1] * DEPTH
    world = torch.cat([sideways, torch.full((FRAMES, 1), DEPTH, dtype=torch.float64)], dim=1)
    matrices = table[:, 7:].reshape(-1, 3, 4)
    seen = torch.einsum("fij,fj->fi", matrices[..., :3], world) + matrices[..., 3]
    centres = principal + focal * seen[:, :2] / seen[:, 2:]
    return ShapePath(centres.float(), (staging.radius * DEPTH / seen[:, 2]).float())


def draw_camera_clip(scene: Scene, rng: random.Random) -> CameraClip:
    """Render a scene under a drawn camera motion; the shape stays in the picture where possible."""
    motion, speed = draw_motion(rng)
    return camera_clip(scene, motion, speed, rng)


def camera_clip(scene: Scene, motion: str, speed: float, rng: random.Random) -> CameraClip:
    """Render a scene under a camera motion.

    Args:
        scene: Scene, whose motion word is the shape's own motion.
        motion: Motion of the camera in words.
        speed: Factor on the motion.
        rng: Generator of staging and start; the start is drawn up to 40 times, until the shape
            stays in the picture.
    """
    staging = draw_staging(scene, rng)
    poses = motion_poses(motion, FRAMES, speed)
    best: tuple[float, ShapePath] | None = None
    for _ in range(TRIES):
        start = (rng.uniform(0.0, SIDE), rng.uniform(0.0, SIDE))
        path = seen_path(staging, start, poses)
        outside = out_of_picture(path)
        if best is None or outside < best[0]:
            best = (outside, path)
        if outside == 0.0:
            break
    assert best is not None
    frames = render_staged(scene, staging, best[1])
    rays = plucker_rays(poses, SIDE, SIDE).permute(3, 0, 1, 2)
    return CameraClip(frames, motion, speed, rays)


def out_of_picture(path: ShapePath) -> float:
    """Return by how many pixels a shape is too close to the edges, over all sides and frames."""
    assert isinstance(path.radii, Tensor)
    reach = (1.2 * path.radii + MARGIN)[:, None]
    low, high = reach - path.centres, path.centres + reach - SIDE
    return low.clamp_min(0.0).sum().item() + high.clamp_min(0.0).sum().item()
