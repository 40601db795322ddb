"""Trajectories: points on the paths of objects, drawn as the heat-map clip of a control checkpoint.

A points file is JSON::

    {
      "coordinates": "relative",
      "objects": [
        {"name": "ball", "points": [{"x": 0.1, "y": 0.5, "frame": 0},
                                    {"x": 0.9, "y": 0.5, "frame": 8}]}
      ]
    }

A bare list of points is one object in pixels, and a list of such lists is several objects, as the
spline editors of node interfaces write them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from base_model.errors import GeneratorError

Coordinates = Literal["pixel", "relative"]
COORDINATES: tuple[Coordinates, ...] = ("pixel", "relative")

SPOT_SIDE = 200
"""Side of the unscaled picture of one spot, in pixels; its centre is at (100, 100)."""

SPREAD = 40.0
"""Standard deviation of the spot's Gaussian in that picture."""

CUTOFF = 99
"""Radius of the spot in that picture."""

RADIUS = 50
"""Half the side of a spot in a clip of 1280 x 720; it scales with the square root of the area."""

LARGEST = 2**31
"""Limit for frame numbers and coordinates; much larger values do not fit into 64 bits."""

LONGEST_SHOWN = 60
"""Characters of a wrong value that a message shows."""

SMALLEST_SIDE = 4
"""A spot with less than 4 x 4 pixels inside the frame is not drawn."""


@dataclass(frozen=True)
class Track:
    """Points of one object, as in its file.

    Attributes:
        name: Name in messages.
        points: `(n, 2)` float64, x and y, n >= 1.
        times: Frame numbers of the points, increasing; None spreads the points evenly over the
            clip, the first on the first frame and the last on the last.
        coordinates: "pixel": x from 0 to width - 1, y from 0 to height - 1. "relative": both from
            0 to 1, where 1 is the last pixel.
    """

    name: str
    points: NDArray[np.float64]
    times: NDArray[np.int64] | None
    coordinates: Coordinates


def read_points_file(path: str | Path) -> list[Track]:
    """Read a points file.

    Args:
        path: JSON file: an object with `objects` and, unless in pixels, `coordinates`; a list of
            points; or a list of lists of points. A point has `x`, `y` and, in all points of an
            object or in none, `frame`.

    Returns:
        One track for each object, in the order of the file.

    Raises:
        GeneratorError: The file is missing, is no JSON or has another form. The message names file,
            object and point.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise GeneratorError(
            f"{path}: the points file cannot be read ({error.strerror or error}). Give the path of "
            "a JSON file."
        ) from error
    except RecursionError as error:
        raise GeneratorError(
            f"{path}: the points file is nested too deeply. Give a list of points, or a list of "
            "lists of points."
        ) from error
    except ValueError as error:  # no UTF-8, no JSON, or a number with more than 4,300 digits
        why = str(error).partition(";")[0]
        raise GeneratorError(f"{path}: the points file is no valid JSON: {why}.") from error
    coordinates, entries = _entries(content, path)
    return [_track(entry, i, coordinates, path) for i, entry in enumerate(entries)]


def track_pixels(
    track: Track, frames: int, height: int, width: int, source: str = "the trajectory"
) -> NDArray[np.int64]:
    """Return the place of an object in every frame: linear between points, at rest outside them.

    Args:
        track: Points of the object.
        frames: Frames of the clip.
        height: Height of the clip, in pixels.
        width: Width of the clip, in pixels.
        source: Name of the trajectory in messages, such as the path of its file.

    Returns:
        `(frames, 2)`: x and y in whole pixels.

    Raises:
        GeneratorError: A point lies outside the picture or its frame outside the clip, or there are
            more points without frames than the clip has frames.
    """
    where = f"{source}, object {track.name!r}"
    if track.times is None:
        if len(track.points) > frames:
            raise GeneratorError(
                f"{where}: {len(track.points)} points for a clip of {frames} frames. Without "
                "'frame' at most one point for each frame is allowed."
            )
        times = np.linspace(0, frames - 1, len(track.points))
    else:
        times = track.times.astype(np.float64)
    relative = track.coordinates == "relative"
    limits = np.array([1.0, 1.0] if relative else [width - 1, height - 1])
    for time, point in zip(times, track.points, strict=True):
        if not 0 <= time <= frames - 1:
            raise GeneratorError(
                f"{where}: a point at frame {time:g}; the clip of {frames} frames has 0 to "
                f"{frames - 1}. Move the point or make a longer clip."
            )
        if not ((point >= 0) & (point <= limits)).all():
            unit = "in relative coordinates" if relative else f"in {width} x {height} pixels"
            raise GeneratorError(
                f"{where}, frame {time:g}: the point ({point[0]:g}, {point[1]:g}) is outside the "
                f"picture; {unit} x runs from 0 to {limits[0]:g} and y from 0 to {limits[1]:g}. "
                "Move the point inside, or set 'coordinates' to the unit of the points."
            )
    pixels = track.points * [width - 1, height - 1] if relative else track.points
    path = [np.interp(np.arange(frames), times, pixels[:, axis]) for axis in range(2)]
    return np.rint(np.stack(path, axis=1)).astype(np.int64)


def heat_maps(
    tracks: list[Track], frames: int, height: int, width: int, source: str = "the trajectory"
) -> NDArray[np.uint8]:
    """Draw the control clip of a trajectory, as the published node does.

    A spot is a Gaussian (`SPREAD`, cut off at `CUTOFF`, 255 at its centre) in a square of half side
    `int(50 sqrt(height width / (1280 720)))`. At the edge of the picture the whole spot is squeezed
    into the visible part of the square; below `SMALLEST_SIDE` pixels it is not drawn. Where spots
    overlap, the larger level counts.

    Args:
        tracks: At least one track, one for each object.
        frames: Frames of the clip.
        height: Height of the clip, in pixels.
        width: Width of the clip, in pixels.
        source: Name of the trajectory in messages, such as the path of its file.

    Returns:
        `(frames, height, width)` uint8 on black; divided by 255 and repeated in three channels it
        is the control clip.

    Raises:
        GeneratorError: See `track_pixels`; or the picture is too small for a spot.
    """
    import cv2

    radius = int(RADIUS * np.sqrt(height * width / (1280 * 720)))
    if 2 * radius < SMALLEST_SIDE:
        raise GeneratorError(
            f"{source}: a spot in a clip of {height} x {width} would be {2 * radius} pixels wide, "
            f"and below {SMALLEST_SIDE} none is drawn. Make the clip at least 48 x 48."
        )
    spot = _spot()
    clip = np.zeros((frames, height, width), dtype=np.uint8)
    for track in tracks:
        for picture, (x, y) in zip(
            clip, track_pixels(track, frames, height, width, source).tolist(), strict=True
        ):
            left, right = max(x - radius, 0), min(x + radius, width - 1)
            top, bottom = max(y - radius, 0), min(y + radius, height - 1)
            if min(right - left, bottom - top) < SMALLEST_SIDE:
                continue
            box = picture[top:bottom, left:right]
            np.maximum(box, cv2.resize(spot, (right - left, bottom - top)), out=box)
    return clip


def _spot() -> NDArray[np.uint8]:
    """Draw one spot, `(200, 200)`, with 255 at (100, 100)."""
    y, x = np.mgrid[:SPOT_SIDE, :SPOT_SIDE] - SPOT_SIDE // 2
    square = x * x + y * y
    level = np.exp(-square / (2 * SPREAD**2)) * (square <= CUTOFF**2)
    return (level * 255).astype(np.uint8)


def _entries(content: Any, path: Path) -> tuple[Coordinates, list[Any]]:
    """Return the coordinates and the unchecked objects of a file's content."""
    coordinates: Any = "pixel"
    if isinstance(content, dict):
        unknown = sorted(set(content) - {"coordinates", "objects"})
        if unknown:
            raise GeneratorError(
                f"{path}: unknown key {_shown(unknown[0])}; a points file has 'coordinates' and "
                "'objects'."
            )
        coordinates = content.get("coordinates", "pixel")
        entries = content.get("objects")
    elif isinstance(content, list) and content and all(isinstance(e, list) for e in content):
        entries = [{"points": points} for points in content]
    else:
        entries = [{"points": content}] if content else content
    if coordinates not in COORDINATES:
        raise GeneratorError(
            f"{path}: 'coordinates' is {_shown(coordinates)}; allowed: {', '.join(COORDINATES)}."
        )
    if not isinstance(entries, list) or not entries:
        raise GeneratorError(
            f"{path}: no objects. A points file is "
            '{"objects": [{"points": [{"x": 10, "y": 20}, ...]}, ...]} or a list of points.'
        )
    return coordinates, entries


def _track(entry: Any, index: int, coordinates: Coordinates, path: Path) -> Track:
    """Check one object of a file."""
    name = index
    if isinstance(entry, dict):
        name = entry.get("name", index)
    if not isinstance(name, str | int):
        raise GeneratorError(f"{path}, object {index}: 'name' is {_shown(name)}; give a text.")
    where = f"{path}, object {_shown(str(name))}"
    if not isinstance(entry, dict) or not set(entry) <= {"name", "points"}:
        raise GeneratorError(
            f"{where}: an object has 'points' and may have a 'name', got {_shown(entry)}."
        )
    points = entry.get("points")
    if not isinstance(points, list) or not points:
        raise GeneratorError(
            f'{where}: no points. Give a list of {{"x": ..., "y": ...}}, each with or without '
            '"frame".'
        )
    for i, point in enumerate(points):
        _check_point(point, f"{where}, point {i}")
    timed = ["frame" in point for point in points]
    if any(timed) and not all(timed):
        raise GeneratorError(
            f"{where}, point {timed.index(False)}: 'frame' is missing, but other points of the "
            "object have it. Give it in all of them or in none."
        )
    times = np.array([point["frame"] for point in points]) if all(timed) else None
    if times is not None and (np.diff(times) <= 0).any():
        raise GeneratorError(
            f"{where}: the frames {_shown(times.tolist())} must increase from point to point."
        )
    places = np.array([[point["x"], point["y"]] for point in points], dtype=np.float64)
    return Track(str(name), places, times, coordinates)


def _check_point(point: Any, where: str) -> None:
    form = '{"x": ..., "y": ...} and possibly "frame"'
    if not isinstance(point, dict) or not {"x", "y"} <= set(point) <= {"x", "y", "frame"}:
        raise GeneratorError(f"{where}: got {_shown(point)}; a point is {form}.")
    for key, value in point.items():
        kinds = int if key == "frame" else (int, float)
        number = isinstance(value, kinds) and not isinstance(value, bool)
        if not number or not abs(value) < LARGEST:  # NaN and infinity included
            wanted = "a whole number" if key == "frame" else "a finite number"
            raise GeneratorError(
                f"{where}: {key!r} is {_shown(value)}, not {wanted} below 2^31. A point is {form}."
            )


def _shown(value: Any) -> str:
    """Shorten a value for a message; invalid and invisible characters become escapes."""
    try:
        text = (
            ascii(value) if not isinstance(value, str) or not value.isprintable() else repr(value)
        )
    except (ValueError, RecursionError):  # an integer with too many digits, or deep nesting
        text = f"a {type(value).__name__}"
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "..."
