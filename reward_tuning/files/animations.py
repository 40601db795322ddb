"""Read animated GIF, WebP and PNG files with Pillow: repeat each picture for its duration.

Writers of these files store an unchanged picture once, with a longer duration, so a reader that
counts stored pictures would take a clip of 9 frames for one of 3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from reward_tuning.errors import TuningError
from reward_tuning.files.container_end import missing_end
from reward_tuning.files.pictures import UNREADABLE
from reward_tuning.files.video_frames import ClipFacts, Frame

FORMATS = ("GIF", "WEBP", "PNG")

TOO_SHORT, INSTEAD = 10.0, 100.0
"""Milliseconds: browsers play a frame of at most 10 for 100, and so did ffmpeg up to 4.2. Here too,
unless the 10 comes from rounding a rate above 50: ffmpeg writes 60 a second as 20, 10, 20, ..."""
TICK = 10.0
"""Milliseconds of a GIF's unit of time; rounding changes a duration by less."""
SHORTEST = 20.0
"""Milliseconds of a frame at the highest rate that durations are divided into, 50 a second."""


@dataclass(frozen=True)
class Timing:
    """How often each stored picture counts as a frame.

    Attributes:
        repeats: Number of frames of each picture, 1 or more.
        fps: Frames per second.
    """

    repeats: tuple[int, ...]
    fps: float


def timing(durations: Sequence[float]) -> Timing:
    """Find the lowest rate at which all durations are whole numbers of frames.

    The shortest pictures are one frame each if that rate fits every duration up to a hundredth of a
    second, the rounding of a GIF; otherwise two frames each, and so on. If no rate up to about 50 a
    second fits, durations are rounded to frames of 50 a second.

    Args:
        durations: Duration of each stored picture in milliseconds.
    """
    longest = max(durations)
    rounded = TOO_SHORT < longest <= TOO_SHORT + TICK and min(durations) > 0
    played = [
        INSTEAD if duration <= TOO_SHORT and not rounded else float(duration)
        for duration in durations
    ]
    total, least = sum(played), min(played)
    shortest = [duration for duration in played if duration <= least + TICK]
    base = sum(shortest) / len(shortest)
    for parts in range(1, max(1, int(base / SHORTEST)) + 1):
        repeats = [max(1, round(duration * parts / base)) for duration in played]
        low = max((d - TICK) / n for d, n in zip(played, repeats, strict=True))
        high = min((d + TICK) / n for d, n in zip(played, repeats, strict=True))
        if low < high:
            return Timing(tuple(repeats), _fps(sum(repeats), total, len(set(played)) > 1))
    return Timing(tuple(max(1, round(d / SHORTEST)) for d in played), 1000 / SHORTEST)


def _fps(frames: int, total: float, uneven: bool) -> float:
    """Return frames per second; an integer if uneven durations, such as 120 and 130, round it."""
    measured = 1000 * frames / total
    whole = round(measured)
    low, high = 1000 * frames / (total + TICK), 1000 * frames / max(total - TICK, TICK)
    return float(whole) if uneven and low <= whole <= high else measured


def has_picture_signature(path: Path) -> bool:
    """Return whether a file is a GIF, PNG or WebP by its first bytes, whatever its name."""
    with path.open("rb") as file:
        head = file.read(12)
    webp = head[:4] == b"RIFF" and head[8:] == b"WEBP"
    return webp or head.startswith((b"GIF8", b"\x89PNG"))


def is_animation(path: Path) -> bool:
    """Return whether a file with a picture's signature is a GIF or has several pictures.

    Raises:
        TuningError: The file cannot be read.
    """
    with _opened(path) as image:
        return image.format == "GIF" or _count(image) > 1


def probe_animation(path: Path) -> ClipFacts:
    """Count the frames of an animation, pictures repeated for their duration.

    Raises:
        TuningError: The file cannot be read, or is cut short; the message gives the number of whole
            pictures.
    """
    with _opened(path) as image:
        durations, height, width = _durations(path, image), image.height, image.width
    if len(durations) == 1:
        return ClipFacts(1, height, width, None)
    found = timing(durations)
    return ClipFacts(sum(found.repeats), height, width, found.fps)


def animation_frames(path: Path, positions: Sequence[int]) -> Iterator[Frame]:
    """Decode frames of an animation.

    Args:
        path: File that `probe_animation` has read without an error.
        positions: Positions of the frames, increasing, repetitions counted.

    Yields:
        Frames `(H, W, 3)`; transparency is dropped.

    Raises:
        TuningError: The file cannot be read, or has fewer frames than when it was probed.
    """
    with _opened(path) as image:
        durations = _durations(path, image)
        repeats = timing(durations).repeats if len(durations) > 1 else (1,)
        requested, yielded, end = list(positions), 0, 0
        first = _first(image)
        for number, count in enumerate(repeats):
            end += count
            if yielded == len(requested):
                break
            if requested[yielded] >= end:
                continue  # Pillow decodes the skipped ones when it seeks past them
            image.seek(first + number)
            frame = np.asarray(image.convert("RGB"))
            while yielded < len(requested) and requested[yielded] < end:
                yielded += 1
                yield frame
    if yielded < len(requested):
        raise TuningError(
            f"clip {path}: {yielded} frames decoded, but it had {len(requested)} when it was "
            "checked; restore the file, or remove its row"
        )


class _opened:  # noqa: N801  (a context manager, used as a function)
    """Open a file with Pillow, and raise Pillow's errors as `TuningError`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Image.Image:
        try:
            self._image = Image.open(self._path)
        except UNREADABLE as error:
            raise self._error(error) from error
        return self._image

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._image.close()
        if isinstance(error, UNREADABLE) and not isinstance(error, TuningError):
            raise self._error(error) from error

    def _error(self, error: BaseException) -> TuningError:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        return TuningError(f"clip {self._path}: not a video that can be read ({why})")


def _count(image: Image.Image) -> int:
    return getattr(image, "n_frames", 1) if image.format in FORMATS else 1


def _first(image: Image.Image) -> int:
    """Return 1 for an animated PNG whose first picture is only for readers of plain PNG."""
    return int(bool(image.info.get("default_image")))


def _durations(path: Path, image: Image.Image) -> list[float]:
    """Return the duration of each picture in milliseconds.

    Raises:
        TuningError: A picture is damaged, or the file is cut short.
    """
    found: list[float] = []
    why = missing_end(path)
    try:
        while _seek(image, _first(image) + len(found)):
            image.load()
            found.append(float(image.info.get("duration", 0) or 0))
    except UNREADABLE as error:
        why = why or str(error) or type(error).__name__
    if why is not None:
        if not found:
            raise TuningError(f"clip {path}: not a video that can be read ({why})")
        raise TuningError(
            f"clip {path}: cut short or damaged, {len(found)} pictures in it can be decoded "
            f"({why}); copy or write it again"
        )
    image.seek(_first(image))
    return found


def _seek(image: Image.Image, number: int) -> bool:
    """Seek to a picture; return whether it exists."""
    try:
        image.seek(number)
    except EOFError:
        return False
    return True
