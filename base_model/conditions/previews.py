"""Pictures of the conditions: heat maps, masks and camera paths, to compare with a result.

All are float32 in [0, 1] in the project's order of channels, like clips.
"""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from base_model.conditions.camera import Poses, camera_to_first, pixel_intrinsics
from base_model.errors import GeneratorError

GROUND = 0.5
"""Grey level behind a heat map without a video."""

MASK_COLOUR = (0.95, 0.15, 0.15)
MASK_OPACITY = 0.45

SHOWN_CAMERAS = 7
"""Number of frusta in the picture of a camera path."""

VIEW = (np.radians(-56.0), np.radians(24.0))
"""View of a camera path: turned about the vertical axis, then tilted from above. From this far to
the side the tip of a frustum is clear of its picture plane, even with a field of view of 93
degrees."""

Picture: TypeAlias = NDArray[np.uint8]
_Points: TypeAlias = NDArray[np.float64]


def heat_map_preview(levels: NDArray[np.uint8], frames: Tensor | None = None) -> Tensor:
    """Draw the heat maps of a trajectory in colour over grey, or over a video.

    Args:
        levels: `(f, H, W)` uint8 from `base_model.conditions.trajectory.heat_maps`.
        frames: `(f, 3, H, W)` in [0, 1], the background; None is grey.

    Returns:
        `(f, 3, H, W)`.

    Raises:
        GeneratorError: The video has another number of frames or another size.
    """
    import cv2

    heat = torch.from_numpy(levels)[:, None].float() / 255
    ground = torch.full((1, 3, 1, 1), GROUND) if frames is None else frames.detach().cpu().float()
    if frames is not None and (len(frames), *frames.shape[2:]) != levels.shape:
        raise GeneratorError(
            f"The heat maps are {levels.shape[0]} frames of {levels.shape[1]} x {levels.shape[2]} "
            f"and the video has shape {tuple(frames.shape)}. Give a video of the same size."
        )
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_HOT)[:, 0, ::-1]
    colours = torch.from_numpy(table.copy()).float()[torch.from_numpy(levels).long()] / 255
    # The square root makes the rim of a spot visible: its Gaussian ends at 5 % of the centre.
    return torch.lerp(ground.expand(-1, 3, *heat.shape[2:]), colours.movedim(-1, 1), heat.sqrt())


def mask_preview(frames: Tensor, mask: Tensor) -> Tensor:
    """Mark the pixels of a video to regenerate in red, with an outline.

    Args:
        frames: `(f, 3, H, W)` in [0, 1].
        mask: `(f, 1, H, W)`, or `(1, 1, H, W)` for all frames; above 0.5 is regenerated.

    Returns:
        `(f, 3, H, W)`.

    Raises:
        GeneratorError: The mask has another number of frames or another size.
    """
    count, _, height, width = frames.shape
    if tuple(mask.shape) not in {(count, 1, height, width), (1, 1, height, width)}:
        raise GeneratorError(
            f"The mask has shape {tuple(mask.shape)} and the video {tuple(frames.shape)}; expected "
            f"a mask ({count}, 1, {height}, {width}), or one frame for all."
        )
    frames = frames.detach().cpu().float()
    inside = (mask.detach().cpu() > 0.5).float()
    outline = inside - -F.max_pool2d(-inside, 3, stride=1, padding=1)
    red = torch.tensor(MASK_COLOUR)[:, None, None]
    shown = torch.lerp(frames, red.expand_as(frames), MASK_OPACITY * inside)
    return torch.lerp(shown, red.expand_as(frames), outline)


def camera_path_picture(poses: Poses, height: int = 480, width: int = 640) -> Tensor:
    """Draw a camera path in one picture: seven frusta, dark at the start and bright at the end.

    Args:
        poses: `(n, 19)`.
        height: Height of the picture, in pixels.
        width: Width of the picture, in pixels.

    Returns:
        `(3, height, width)`.
    """
    scene = _scene(poses, height, width)
    picture = _ground(scene, height, width)
    colours = _time_colours(len(poses))
    _draw_path(picture, scene, colours, len(poses))
    for i in np.unique(np.linspace(0, len(poses) - 1, SHOWN_CAMERAS).round().astype(int)):
        _draw_camera(picture, scene, i, colours[i], 2)
    return _tensor(picture)


def camera_path_preview(poses: Poses, height: int = 480, width: int = 640) -> Tensor:
    """Draw a camera path as a clip that shows the camera of each frame.

    Args:
        poses: `(f, 19)`, one per frame.
        height: Height of the pictures, in pixels.
        width: Width of the pictures, in pixels.

    Returns:
        `(f, 3, height, width)`.
    """
    scene = _scene(poses, height, width)
    ground = _ground(scene, height, width)
    colours = _time_colours(len(poses))
    clip = []
    for i in range(len(poses)):
        picture = ground.copy()
        _draw_path(picture, scene, [(200, 200, 200)] * len(poses), len(poses))
        _draw_path(picture, scene, colours, i + 1)
        _draw_camera(picture, scene, 0, (170, 170, 170), 1)
        _draw_camera(picture, scene, i, colours[i], 2)
        clip.append(_tensor(picture))
    return torch.stack(clip)


class _Scene(NamedTuple):
    """Everything to draw, in pixels of the picture."""

    path: _Points  # (n, 2), positions of the cameras
    frusta: _Points  # (n, 6, 2): position, four corners of the picture plane, its "up" mark
    grid: _Points  # (m, 2, 2), lines of the floor
    axes: _Points  # (3, 2), directions of x, y and z for the legend, in pixels


def _scene(poses: Poses, height: int, width: int) -> _Scene:
    """Project the path with its cameras from `VIEW` and scale it to the picture."""
    cameras = camera_to_first(poses)
    places = cameras[:, :3, 3]
    extent = float(np.ptp(places, axis=0).max())
    # A camera that does not move gets a frustum as large as the picture allows.
    depth = 0.22 * extent if extent > 0 else 1.0
    fx, fy, _, _ = pixel_intrinsics(poses, 9, 16)[0]
    x, y = depth * 8 / fx, depth * 4.5 / fy
    corners = [[-x, -y, depth], [x, -y, depth], [x, y, depth], [-x, y, depth]]
    local = np.array([[0, 0, 0], *corners, [0, -1.5 * y, depth]])
    frusta = np.einsum("nij,kj->nki", cameras[:, :3, :3], local) + places[:, None]
    grid = _floor(frusta.reshape(-1, 3))
    points = [_seen(part) for part in (places, frusta, grid)]
    every = np.concatenate([part.reshape(-1, 2) for part in points])
    low, high = every.min(axis=0), every.max(axis=0)
    scale = float((np.array([width, height]) * 0.86 / (high - low)).min())
    middle = np.array([width, height]) / 2
    path, seen_frusta, seen_grid = ((p - (low + high) / 2) * scale + middle for p in points)
    return _Scene(path, seen_frusta, seen_grid, _seen(np.eye(3)) * 0.07 * min(height, width))


def _floor(points: _Points) -> _Points:
    """Return grid lines below all points, `(m, 2, 3)`."""
    low, high = points.min(axis=0), points.max(axis=0)
    step = float((high - low)[[0, 2]].max()) / 6
    floor = high[1] + 0.3 * step
    xs = low[0] + step * np.arange(np.ceil((high[0] - low[0]) / step) + 1)
    zs = low[2] + step * np.arange(np.ceil((high[2] - low[2]) / step) + 1)
    lines = [[[x, floor, zs[0]], [x, floor, zs[-1]]] for x in xs]
    lines += [[[xs[0], floor, z], [xs[-1], floor, z]] for z in zs]
    return np.array(lines)


def _seen(points: _Points) -> _Points:
    """Project `(..., 3)` in the first camera's coordinates orthographically to `(..., 2)`."""
    turn, rise = VIEW
    x, y, z = np.moveaxis(points, -1, 0)
    right = np.cos(turn) * x - np.sin(turn) * z
    away = np.sin(turn) * x + np.cos(turn) * z
    return np.stack([right, np.cos(rise) * y - np.sin(rise) * away], axis=-1)


def _ground(scene: _Scene, height: int, width: int) -> Picture:
    """Draw a white picture with the floor and the directions of the three axes."""
    picture = np.full((height, width, 3), 255, dtype=np.uint8)
    for line in scene.grid:
        _line(picture, line, (228, 228, 228), 1)
    origin = np.array([0.1 * width, height - 0.1 * height])
    marks = (("x right", (200, 60, 60)), ("y down", (50, 140, 60)), ("z ahead", (60, 80, 200)))
    for axis, (name, colour) in zip(scene.axes, marks, strict=True):
        _line(picture, np.stack([origin, origin + axis]), colour, 2)
        _text(picture, name, origin + 1.2 * axis + 0.012 * height, colour)
    return picture


def _draw_path(picture: Picture, scene: _Scene, colours: list[Any], count: int) -> None:
    for i in range(1, count):
        _line(picture, scene.path[i - 1 : i + 1], colours[i], 2)


def _draw_camera(picture: Picture, scene: _Scene, i: int, colour: Any, thickness: int) -> None:
    """Draw the edges of one frustum; a roof on its picture plane marks the top."""
    place, a, b, c, d, up = scene.frusta[i]
    for start, end in ((a, b), (b, c), (c, d), (d, a), (a, up), (up, b)):
        _line(picture, np.stack([start, end]), colour, thickness)
    for corner in (a, b, c, d):
        _line(picture, np.stack([place, corner]), colour, 1)


def _line(picture: Picture, ends: _Points, colour: Any, thickness: int) -> None:
    """Draw a smooth line with a precision of 1/16 pixel."""
    import cv2

    start, end = np.rint(ends * 16).astype(int).tolist()
    cv2.line(picture, start, end, colour, thickness, cv2.LINE_AA, 4)


def _text(picture: Picture, text: str, place: _Points, colour: Any) -> None:
    import cv2

    x, y = np.rint(place).astype(int).tolist()
    size = picture.shape[0] / 1100
    cv2.putText(picture, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def _time_colours(count: int) -> list[Any]:
    """Return the colour of each frame as RGB, from dark violet to yellow."""
    import cv2

    levels = np.linspace(0, 230, count).astype(np.uint8)[:, None]
    return cv2.applyColorMap(levels, cv2.COLORMAP_PLASMA)[:, 0, ::-1].tolist()


def _tensor(picture: Picture) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1).float() / 255
