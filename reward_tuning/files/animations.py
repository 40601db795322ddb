"""Animated GIF, WebP and PNG files, by Pillow: each picture as often as its duration says.

Writers of these files store a picture that does not change once, with a longer duration, and a
reader that counts stored pictures would take a clip of 9 frames for one of 3.
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
"""Milliseconds: browsers play a frame of at most 10 for 100, and so did ffmpeg up to 4.2. Not so
where it is the rounding of a rate above 50: ffmpeg writes 60 a second as 20, 10, 20, 20, ..."""
TICK = 10.0
"""Milliseconds that a GIF counts in; a duration is rounded by less than this."""
SHORTEST = 20.0
"""Milliseconds of the fastest rate that durations are taken apart into, 50 a second."""


@dataclass(frozen=True)
class Timing:
    """How often each stored picture is a frame.

    Attributes:
        repeats: Of each picture, 1 or more.
        fps: Frames a second.
    """

    repeats: tuple[int, ...]
    fps: float


def timing(durations: Sequence[float]) -> Timing:
    """Find the rate at which durations are whole numbers of frames.

    The shortest are one frame each where a rate exists at which every duration is off by less than
    a GIF's hundredth of a second, as rounding leaves it; else two frames each, and so on. Where
    none up to about 50 a second fits, durations are rounded to frames of that.

    Args:
        durations: Milliseconds, of each stored picture in their order.
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
    """Frames a second; a whole number where uneven durations are its rounding, as 120 and 130."""
    measured = 1000 * frames / total
    whole = round(measured)
    low, high = 1000 * frames / (total + TICK), 1000 * frames / max(total - TICK, TICK)
    return float(whole) if uneven and low <= whole <= high else measured


def holds_pictures(path: Path) -> bool:
    """Whether a file is a GIF, PNG or WebP, by its first bytes and whatever its name."""
    with path.open("rb") as file:
        head = file.read(12)
    webp = head[:4] == b"RIFF" and head[8:] == b"WEBP"
    return webp or head.startswith((b"GIF8", b"\x89PNG"))


def is_animation(path: Path) -> bool:
    """Whether a file that `holds_pictures` has several, or is a GIF.

    Raises:
        TuningError: It cannot be read.
    """
    with _opened(path) as image:
        return image.format == "GIF" or _count(image) > 1


def look_at_animation(path: Path) -> ClipFacts:
    """Count the frames of an animation, each picture as often as its duration says.

    Raises:
        TuningError: It cannot be read, or is cut short, with how many pictures are whole.
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
        path: A file that `look_at_animation` has found whole.
        positions: Of the frames, increasing, repetitions counted.

    Yields:
        `(H, W, 3)`, each of them; transparency is dropped.

    Raises:
        TuningError: The file cannot be read, or is shorter than it was when looked at.
    """
    with _opened(path) as image:
        durations = _durations(path, image)
        repeats = timing(durations).repeats if len(durations) > 1 else (1,)
        wanted, came, end = list(positions), 0, 0
        first = _first(image)
        for place, often in enumerate(repeats):
            end += often
            if came == len(wanted):
                break
            if wanted[came] >= end:
                continue  # Pillow draws the skipped ones when it seeks further
            image.seek(first + place)
            shown = np.asarray(image.convert("RGB"))
            while came < len(wanted) and wanted[came] < end:
                came += 1
                yield shown
    if came < len(wanted):
        raise TuningError(
            f"clip {path}: {came} frames decoded, but it had {len(wanted)} when it was checked; "
            "restore the file, or remove its row"
        )


class _opened:  # noqa: N801  (a context manager, used as a function)
    """Pillow's picture of a file; what Pillow finds wrong becomes a `TuningError`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Image.Image:
        try:
            self._image = Image.open(self._path)
        except UNREADABLE as error:
            raise self._told(error) from error
        return self._image

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._image.close()
        if isinstance(error, UNREADABLE) and not isinstance(error, TuningError):
            raise self._told(error) from error

    def _told(self, error: BaseException) -> TuningError:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        return TuningError(f"clip {self._path}: not a video that can be read ({why})")


def _count(image: Image.Image) -> int:
    return getattr(image, "n_frames", 1) if image.format in FORMATS else 1


def _first(image: Image.Image) -> int:
    """1 for an animated PNG whose first picture is for readers of plain PNG alone."""
    return int(bool(image.info.get("default_image")))


def _durations(path: Path, image: Image.Image) -> list[float]:
    """Milliseconds of each picture.

    Raises:
        TuningError: A picture is not whole, or the file ends too early.
    """
    found: list[float] = []
    why = missing_end(path)
    try:
        while _has(image, _first(image) + len(found)):
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


def _has(image: Image.Image, place: int) -> bool:
    """Go to a picture; whether there is one."""
    try:
        image.seek(place)
    except EOFError:
        return False
    return True
