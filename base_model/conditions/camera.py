"""Camera poses: the pose file, and the Plücker rays that a camera checkpoint reads.

A pose is one row of 19 numbers, as in RealEstate10K: a timestamp; `fx fy cx cy` as shares of the
picture's width and height; two zeros; the 3 x 4 matrix from world to camera, row by row. In both
coordinate systems x points right, y down and z forward. Focal lengths refer to a 1280 x 720 picture
(`POSE_RATIO`).
"""

from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from base_model.errors import GeneratorError

Poses: TypeAlias = NDArray[np.float64]
"""`(n, 19)`, one pose per row."""

POSE_COLUMNS = 19  # a time, 4 intrinsics, 2 unused numbers, a 3 x 4 matrix
POSE_RATIO = 1280 / 720
"""Width over height of the pictures that the focal lengths of a pose file refer to."""

INTRINSICS = (0.474812461, 0.844111024, 0.5, 0.5)
"""`fx fy cx cy` of the published camera presets."""

LARGEST = 1e6
"""Largest value except for the timestamp, which may count microseconds; larger rays overflow."""

ROTATION_TOLERANCE = 1e-2
"""Largest entry of `R R^T - I` that counts as rounding: files print 6 to 9 digits."""


def read_pose_file(path: str | Path) -> Poses:
    """Read a pose file.

    The first line may be a header, such as the address of the video: any line whose first word is
    not a number. (The published reader always drops the first line, which loses a pose of a file
    without a header.) Empty lines are skipped.

    Args:
        path: Text file with values separated by white space.

    Returns:
        `(n, 19)` float64, n >= 1.

    Raises:
        GeneratorError: There is no file or no pose, or a row has another number of columns, a cell
            that is not a finite number, a focal length that is not positive, or a matrix that is no
            rotation. The message names file and line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise GeneratorError(
            f"{path}: the pose file cannot be read ({error.strerror or error}). Give the path of a "
            f"text file with {POSE_COLUMNS} columns."
        ) from error
    except UnicodeDecodeError as error:
        raise GeneratorError(
            f"{path}: a pose file must be UTF-8 text, and this file is not ({error.reason} at byte "
            f"{error.start}). Give a text file with {POSE_COLUMNS} columns."
        ) from error
    except ValueError as error:  # a NUL character or a lone surrogate in the name
        raise GeneratorError(
            f"{str(path)[:60]!a}: not a valid file name ({error}). Give the path of a text file "
            f"with {POSE_COLUMNS} columns."
        ) from error
    words = [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip()]
    if words and not _is_number(words[0][1][0]):
        words = words[1:]
    if not words:
        raise GeneratorError(
            f"{path}: the pose file holds no pose. After an optional header it needs one line of "
            f"{POSE_COLUMNS} numbers for each frame."
        )
    return np.stack([_pose(row, f"{path}, line {number}") for number, row in words])


def write_pose_file(path: str | Path, poses: Poses, header: str = "camera poses") -> None:
    """Write poses in a form that `read_pose_file` and the published reader restore.

    Args:
        path: Path of the file; the folder must exist.
        poses: `(n, 19)`.
        header: First line, which readers skip. Its first word must not be a number.

    Raises:
        GeneratorError: The header could be read as a pose, or a pose is invalid.
    """
    first = header.split()[:1]
    if not first or _is_number(first[0]) or "\n" in header:
        raise GeneratorError(
            f"{path}: the header {header!r} must be one line that starts with a word. "
            "The published reader drops the first line, so a pose there would be lost."
        )
    rows = [[repr(float(value)) for value in row] for row in poses]
    for i, row in enumerate(rows):
        _pose(row, f"{path}, pose {i}")
    text = "\n".join([header, *(" ".join(row) for row in rows)]) + "\n"
    Path(path).write_text(text, encoding="utf-8")


def pose_table(matrices: NDArray[np.float64], intrinsics: tuple[float, ...] = INTRINSICS) -> Poses:
    """Return the rows of a pose file for a moving camera with fixed intrinsics.

    Args:
        matrices: `(n, 3, 4)`, world to camera.
        intrinsics: `fx fy cx cy` as shares of width and height.

    Returns:
        `(n, 19)`; timestamps are 0, 1, 2, ...
    """
    count = len(matrices)
    return np.concatenate(
        [
            np.arange(count, dtype=np.float64)[:, None],
            np.tile(np.array(intrinsics, dtype=np.float64), (count, 1)),
            np.zeros((count, 2)),
            np.asarray(matrices, dtype=np.float64).reshape(count, 12),
        ],
        axis=1,
    )


def clip_poses(poses: Poses, frames: int, *, every: int = 1, source: str = "the poses") -> Poses:
    """Select the poses of a clip's frames: every `every`-th pose, and of these the first `frames`.

    This is the published rule; nothing is interpolated. The published script takes
    `every = 24 // fps`, 3 at EasyAnimate's 8 frames per second, for pose files of videos with 24
    frames per second. A file that was made for the clip has one pose per frame: `every = 1`.

    Args:
        poses: `(n, 19)`.
        frames: Frames of the clip.
        every: Step between two selected poses.
        source: Name of the poses in messages, such as the path of their file.

    Returns:
        `(frames, 19)`.

    Raises:
        GeneratorError: There are too few poses, or `every` is below 1.
    """
    if every < 1:
        raise GeneratorError(
            f"{source}: every = {every}; the step between two selected poses must be at least 1. "
            "Give 1 for one pose per frame, or 3 for poses at 24 per second and a clip at 8."
        )
    needed = every * (frames - 1) + 1
    if len(poses) < needed:
        raise GeneratorError(
            f"{source}: {len(poses)} poses are too few for a clip of {frames} frames, which needs "
            f"{needed} (one in {every} is used). Give a longer pose file or a shorter clip."
        )
    return poses[::every][:frames]


def camera_to_first(poses: Poses) -> NDArray[np.float64]:
    """Return camera-to-world matrices in the coordinates of the first camera.

    Args:
        poses: `(n, 19)`.

    Returns:
        `(n, 4, 4)`; the first is the identity, column 3 is the position of the camera.
    """
    world_to_camera = np.tile(np.eye(4), (len(poses), 1, 1))
    world_to_camera[:, :3] = poses[:, 7:].reshape(-1, 3, 4)
    relative = world_to_camera[0] @ np.linalg.inv(world_to_camera)
    relative[0] = np.eye(4)
    return relative


def pixel_intrinsics(poses: Poses, height: int, width: int) -> NDArray[np.float64]:
    """Return `fx fy cx cy` in pixels, for a picture that covers a clip of another shape.

    The 16:9 picture is scaled until it covers the clip, and cropped. One of the two focal lengths
    keeps its share of the clip and the other grows: fx if the clip is narrower than 16:9, fy if it
    is wider. The centre keeps its share.

    Args:
        poses: `(n, 19)`.
        height: Height of the clip, in pixels.
        width: Width of the clip, in pixels.

    Returns:
        `(n, 4)`.
    """
    fx, fy, cx, cy = poses[:, 1:5].T
    if width / height < POSE_RATIO:
        fx = fx * (height * POSE_RATIO) / width
    else:
        fy = fy * (width / POSE_RATIO) / height
    return np.stack([fx * width, fy * height, cx * width, cy * height], axis=1)


def plucker_rays(poses: Poses, height: int, width: int) -> Tensor:
    """Return the Plücker coordinates of the ray through the centre of every pixel.

    With camera i's rotation R and centre o, both in the first camera's coordinates, the ray of a
    pixel is `d = R n / |n|`, `n = ((x + 0.5 - cx)/fx, (y + 0.5 - cy)/fy, 1)`, and its
    coordinates are `(o x d, d)` (Plücker rays as in CameraCtrl, arXiv:2404.02101, and in
    EasyAnimateV5.1's own code, except that its cross product takes the frame axis for a clip of
    exactly three frames).

    Args:
        poses: `(f, 19)`, one per frame.
        height: Height of the clip, in pixels.
        width: Width of the clip, in pixels.

    Returns:
        `(f, height, width, 6)` float32: moment `o x d` in the poses' unit of length, then the
        unit direction d.
    """
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.empty((len(poses), height, width, 6), dtype=np.float32)
    intrinsics = pixel_intrinsics(poses, height, width)
    # One frame at a time: in float64 all 49 frames of 1024 x 1024 would need 5 GB.
    for i, camera in enumerate(camera_to_first(poses)):
        fx, fy, cx, cy = intrinsics[i]
        normals = np.stack([(x - cx) / fx, (y - cy) / fy, np.ones_like(x)], axis=-1)
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        directions = normals @ camera[:3, :3].T
        rays[i, ..., :3] = np.cross(camera[:3, 3], directions, axis=-1)
        rays[i, ..., 3:] = directions
    return torch.from_numpy(rays)


def _pose(words: list[str], where: str) -> NDArray[np.float64]:
    """Return one checked row, `(19,)`."""
    if len(words) != POSE_COLUMNS:
        raise GeneratorError(
            f"{where}: {len(words)} columns; a pose has {POSE_COLUMNS}: timestamp, fx fy cx cy, "
            "0 0, and the 3 x 4 matrix from world to camera. (Files without the timestamp have 18: "
            "put a 0 in front of each line.)"
        )
    for column, word in enumerate(words, 1):
        if not _is_number(word) or not np.isfinite(float(word)):
            raise GeneratorError(
                f"{where}, column {column}: {word[:60]!r} is not a finite number. A pose is "
                f"{POSE_COLUMNS} numbers, separated by spaces."
            )
        if column > 1 and abs(float(word)) > LARGEST:
            raise GeneratorError(
                f"{where}, column {column}: {word[:60]} cannot be a share, rotation or position of "
                f"a camera; the largest is {LARGEST:g}. Check the order of the columns."
            )
    row = np.array([float(word) for word in words])
    if row[1] <= 0 or row[2] <= 0:
        raise GeneratorError(
            f"{where}: focal lengths {row[1]:g} and {row[2]:g} (columns 2 and 3); both must be "
            "above 0, as shares of width and height."
        )
    rotation = row[7:].reshape(3, 4)[:, :3]
    error = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if not error <= ROTATION_TOLERANCE or np.linalg.det(rotation) < 0:
        raise GeneratorError(
            f"{where}: columns 8-10, 12-14 and 16-18 are the rows of a rotation, and these are not "
            f"(R R^T is {error:.2g} off the identity, det R = {np.linalg.det(rotation):.2g}). "
            "Check the order of the columns."
        )
    return row


def _is_number(word: str) -> bool:
    if "_" in word:
        return False  # float() accepts 1_000, which no pose file means
    try:
        float(word)
    except ValueError:
        return False
    return True
