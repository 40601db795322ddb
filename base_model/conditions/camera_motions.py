"""Camera motions in words, single, summed and chained, converted to camera poses.

Examples: `pan left`, `pan left and up`, `pan left then zoom in`. `and` runs motions at the same
time, `then` one after the other, each for its share of the clip. The paths are those of the
published presets, on which the camera checkpoint was trained.
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from base_model.conditions.camera import Poses, pose_table
from base_model.errors import GeneratorError

DISTANCE = 1.5
"""Distance that a pan at speed 1 covers, in the poses' unit of length."""

ANGLE = np.pi / 3
"""Angle that a roll at speed 1 turns, in radians."""

FASTEST = 1e4
"""Largest speed; beyond it a roll is nothing but rounding."""

LONGEST_SHOWN = 80
"""Characters of a motion that a message shows."""


@dataclass(frozen=True)
class Motion:
    """A camera motion: a straight movement and a roll, both at constant speed.

    Attributes:
        move: Share of `DISTANCE` that the *world* moves, as seen from the camera: x right,
            y down, z forward. The camera moves the other way.
        roll: Share of `ANGLE` that the world turns about the viewing axis, from x to y:
            clockwise in the picture. The camera turns the other way.
    """

    move: tuple[float, float, float] = (0.0, 0.0, 0.0)
    roll: float = 0.0

    def __add__(self, other: "Motion") -> "Motion":
        """Run both motions at the same time."""
        x, y, z = (a + b for a, b in zip(self.move, other.move, strict=True))
        return Motion((x, y, z), self.roll + other.roll)


MOTIONS = {
    "static": Motion(),
    "pan left": Motion((1.0, 0.0, 0.0)),
    "pan right": Motion((-1.0, 0.0, 0.0)),
    "pan up": Motion((0.0, 1.0, 0.0)),
    "pan down": Motion((0.0, -1.0, 0.0)),
    "zoom in": Motion((0.0, 0.0, -2.0)),
    "zoom out": Motion((0.0, 0.0, 2.0)),
    "roll clockwise": Motion(roll=-1.0),
    "roll anticlockwise": Motion(roll=1.0),
}
"""All single motions, by the published names. A pan moves the camera sideways and a zoom along its
axis; only a roll turns it, and the focal length never changes."""


def parse_motion(text: str) -> tuple[Motion, ...]:
    """Parse a motion in words.

    Args:
        text: Motions of `MOTIONS`, joined by `and` (at the same time) and `then` (one after the
            other); `and` binds tighter. The verb after `and` is optional: `pan left and up`. Case
            and spaces do not matter.

    Returns:
        One motion for each part between `then`.

    Raises:
        GeneratorError: A motion is unknown. The message lists what is allowed.
    """
    return tuple(_sum(part, text) for part in re.split(r"\bthen\b", text.lower()))


def motion_matrices(text: str, frames: int, speed: float = 1.0) -> NDArray[np.float64]:
    """Return the camera of each frame.

    In each part of a chain, the motion has covered the share `i / n` at frame i of the part's n
    frames. A part thus starts with the last pose of the one before, which appears twice, as
    published. The parts share the frames evenly; the first ones get the remainder.

    Args:
        text: Motion; see `parse_motion`.
        frames: Frames of the clip.
        speed: Factor on every distance and angle; above 0.

    Returns:
        `(frames, 3, 4)`, world to camera; the first is the identity.

    Raises:
        GeneratorError: A motion is unknown, the speed is not above 0, or there are more parts than
            frames.
    """
    parts = parse_motion(text)
    if not 0 < speed <= FASTEST:
        raise GeneratorError(
            f"The camera motion {_shown(text)} has speed {speed:g}; it must be above 0 and at most "
            f"{FASTEST:g}. For the other direction use the opposite motion; 1 is published."
        )
    if len(parts) > frames:
        raise GeneratorError(
            f"The camera motion {_shown(text)} has {len(parts)} parts and the clip {frames} "
            "frames. Give each part at least one frame."
        )
    last = np.eye(4)
    path = []
    for i, part in enumerate(parts):
        count = frames // len(parts) + (i < frames % len(parts))
        matrices = [_matrix(part, speed * j / count) @ last for j in range(count)]
        path += matrices
        last = matrices[-1]
    return np.stack(path)[:, :3]


def motion_poses(text: str, frames: int, speed: float = 1.0) -> Poses:
    """Return the rows of a pose file for a motion, with the published presets' focal lengths.

    Args:
        text: Motion; see `parse_motion`.
        frames: Frames of the clip.
        speed: See `motion_matrices`.

    Returns:
        `(frames, 19)`, for `base_model.conditions.camera.plucker_rays` or
        `base_model.conditions.camera.write_pose_file`.

    Raises:
        GeneratorError: See `motion_matrices`.
    """
    return pose_table(motion_matrices(text, frames, speed))


def _sum(part: str, text: str) -> Motion:
    """Sum the motions between two `then`."""
    total, verb = Motion(), ""
    for name in re.split(r"\band\b", part):
        words = name.split()
        if len(words) == 1 and verb and f"{verb} {words[0]}" in MOTIONS:
            words = [verb, *words]
        motion = MOTIONS.get(" ".join(words))
        if motion is None:
            found = f"{_shown(' '.join(words))} is" if words else "an empty part is"
            raise GeneratorError(
                f"The camera motion {_shown(text)}: {found} not a motion. Allowed: "
                f"{', '.join(MOTIONS)}, joined by 'and' (at the same time: 'pan left and up') and "
                "'then' (one after the other: 'pan left then zoom in')."
            )
        verb = words[0]
        total = total + motion
    return total


def _matrix(motion: Motion, share: float) -> NDArray[np.float64]:
    """Return world to camera, `(4, 4)`, after the share `share` of a motion."""
    matrix = np.eye(4)
    angle = share * ANGLE * motion.roll
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:3, 3] = share * DISTANCE * np.array(motion.move)
    return matrix


def _shown(text: str) -> str:
    """Shorten a text for a message."""
    return f"{text[:LONGEST_SHOWN]!r}" + ("..." if len(text) > LONGEST_SHOWN else "")
