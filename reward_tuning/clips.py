"""Clips as files: mp4, gif and pictures, read and written; two clips side by side."""

import contextlib
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.mp4_file import write_mp4

FPS = 8  # of EasyAnimateV5.1's clips
ENDINGS = (".mp4", ".gif", ".png")
VIDEOS = (".mp4", ".webm")  # read through ffmpeg
UNREADABLE = (OSError, ValueError, RuntimeError, StopIteration, SyntaxError, EOFError)
"""What ffmpeg and Pillow raise on files that are damaged or something else."""


Wanted = Callable[[int], Iterable[int]]


def write_clip(frames: Tensor, path: str | Path, *, fps: int = FPS, enlarge: int = 1) -> None:
    """Write a clip; the file appears whole or not at all.

    Args:
        frames: `(f, 3, H, W)` in [0, 1].
        path: Ends in .mp4 (H.264), .gif (endless loop) or .png (the frames in a row).
        fps: Frames a second; a gif counts in hundredths of a second.
        enlarge: Whole factor by which each pixel is repeated, to see small clips.

    Raises:
        TuningError: Another ending, another shape, frames that are not finite, or the disk is full.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise TuningError(f"clip {path}: ending {path.suffix!r}; allowed: {', '.join(ENDINGS)}")
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise TuningError(f"clip {path}: got {tuple(frames.shape)}; wanted (frames, 3, H, W)")
    if not bool(frames.isfinite().all()):
        raise TuningError(
            f"clip {path}: its frames hold NaN or infinity, so there is no picture to write; "
            "sample in float32, with a smaller guidance scale"
        )
    video = _bytes(frames, enlarge)
    if path.suffix == ".mp4":
        _atomically(path, lambda part: write_mp4(part, video, fps))
    else:
        content = _picture_bytes(video, path.suffix, fps)
        _atomically(path, lambda part: part.write_bytes(content))


def read_clip(path: str | Path, wanted: Wanted | None = None, *, most: int | None = None) -> Tensor:
    """Read a clip.

    Args:
        path: An mp4, webm or gif file; a png or jpg file is a clip of one frame. Transparency is
            dropped, and a photo is turned as its camera says.
        wanted: From the number of frames to the positions that are kept; None for all. The file is
            then decoded twice, so that no others are held in memory.
        most: Read no more frames than these; None for all.

    Returns:
        `(f, 3, H, W)` float32 in [0, 1].

    Raises:
        TuningError: The file is missing or is no video.
    """
    path = Path(path)
    if not path.is_file():
        raise TuningError(f"clip {path}: no such file")
    if path.suffix.lower() in VIDEOS:
        options: dict[str, Any] = {"plugin": "FFMPEG"}
    else:
        options = {"plugin": "pillow", "mode": "RGB", "rotate": True}
    try:
        kept = None
        if wanted is not None:
            kept = set(wanted(sum(1 for _ in iio.imiter(path, **options))))
        numbered = enumerate(itertools.islice(iio.imiter(path, **options), most))
        video = np.stack([frame for i, frame in numbered if kept is None or i in kept])
    except UNREADABLE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TuningError(f"clip {path}: not a video that can be read ({reason})") from error
    return torch.from_numpy(video).permute(0, 3, 1, 2).float() / 255


def side_by_side(before: Tensor, after: Tensor, gap: int = 4) -> Tensor:
    """Put two clips next to each other, with a white bar between.

    Args:
        before: `(f, 3, H, W)` in [0, 1], on the left.
        after: The same shape, on the right.
        gap: Pixels of the bar.

    Returns:
        `(f, 3, H, 2 W + gap)`.

    Raises:
        TuningError: The shapes differ.
    """
    if before.shape != after.shape:
        raise TuningError(
            f"clips side by side: got {tuple(before.shape)} and {tuple(after.shape)}; "
            "they must have the same frames and size"
        )
    bar = before.new_ones((*before.shape[:3], gap))
    return torch.cat([before, bar, after], dim=3)


def stacked(clips: list[Tensor], gap: int = 4) -> Tensor:
    """Put clips of one shape `(f, 3, H, W)` below each other, with white bars between."""
    rows: list[Tensor] = []
    for clip in clips:
        if rows:
            rows.append(clip.new_ones((*clip.shape[:2], gap, clip.shape[3])))
        rows.append(clip)
    return torch.cat(rows, dim=2)


def _bytes(frames: Tensor, enlarge: int) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    frames = frames.detach().float().cpu().clamp(0, 1)
    frames = frames.repeat_interleave(enlarge, dim=2).repeat_interleave(enlarge, dim=3)
    video: np.ndarray[Any, np.dtype[np.uint8]] = (
        (frames * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    )
    return video


def _picture_bytes(video: "np.ndarray[Any, np.dtype[np.uint8]]", ending: str, fps: int) -> bytes:
    """A gif or png in memory: imageio's writer of files does not end well on a full disk."""
    content: bytes
    if ending == ".png":
        strip = video.transpose(1, 0, 2, 3).reshape(video.shape[1], -1, 3)
        content = iio.imwrite("<bytes>", strip, extension=".png")
    else:
        duration = 1000 / fps
        content = iio.imwrite("<bytes>", video, extension=".gif", duration=duration, loop=0)
    return content


def _atomically(path: Path, write: Callable[[Path], Any]) -> None:
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        part.replace(path)
    except OSError as error:
        raise TuningError(
            f"clip {path}: cannot be written ({error.strerror or error}); free some space or "
            "choose another place"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
