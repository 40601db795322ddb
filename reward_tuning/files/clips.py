"""Clips as files: read and write videos, gifs and pictures; put two clips side by side."""

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import imageio.v3 as iio
import numpy as np
import torch
from torch import Tensor

from base_model.core.family import FAMILY
from reward_tuning.errors import TuningError
from reward_tuning.files.animations import (
    animation_frames,
    has_picture_signature,
    is_animation,
    probe_animation,
)
from reward_tuning.files.clip_names import WRITTEN_SUFFIXES
from reward_tuning.files.file_names import file_name_fault
from reward_tuning.files.gif_file import gif_bytes
from reward_tuning.files.mp4_file import write_mp4
from reward_tuning.files.pictures import PICTURE_SUFFIXES, as_tensor, read_picture
from reward_tuning.files.video_frames import ClipFacts, probe_video, video_frames

SelectFrames = Callable[[int], Iterable[int]]
"""From the number of frames in a clip to the positions to read."""


def write_clip(
    frames: Tensor, path: str | Path, *, fps: float = FAMILY.frames_per_second, enlarge: int = 1
) -> None:
    """Write a clip, whole or not at all.

    Args:
        frames: `(f, 3, H, W)` in [0, 1].
        path: File that ends in .mp4 (H.264), .gif (endless loop) or .png (the frames in a row).
        fps: Frames per second; a gif plays at most 50, and counts in hundredths of a second.
        enlarge: Integer factor by which each pixel is repeated, to make small clips visible.

    Raises:
        TuningError: Another suffix or shape, frames that are not finite, or a full disk.
    """
    path = Path(path)
    if path.suffix not in WRITTEN_SUFFIXES:
        raise TuningError(
            f"clip {path}: suffix {path.suffix!r}; allowed: {', '.join(WRITTEN_SUFFIXES)}"
        )
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise TuningError(f"clip {path}: got {tuple(frames.shape)}; expected (frames, 3, H, W)")
    if not bool(frames.isfinite().all()):
        raise TuningError(
            f"clip {path}: its frames contain NaN or infinity, so there is no picture to write; "
            "sample in float32, with a smaller guidance scale"
        )
    video = _bytes(frames, enlarge)
    if path.suffix == ".mp4":
        _atomically(path, lambda part: write_mp4(part, video, fps))
    else:
        content = _picture_bytes(video, path.suffix, fps)
        _atomically(path, lambda part: part.write_bytes(content))


def probe_clip(path: str | Path) -> ClipFacts:
    """Count a clip's frames by decoding it once, and read its size and rate.

    Args:
        path: Video; animated gif, webp or png; or picture, which is a clip of one frame. A gif,
            webp or png is recognised by its content, other pictures by their suffix; anything else
            is read as a video.

    Raises:
        TuningError: The file is missing, is none of these, or is cut short or damaged; the message
            gives the number of frames that can be decoded.
    """
    path = _existing(path)
    kind = _kind(path)
    if kind == "animation":
        return probe_animation(path)
    if kind == "picture":
        _, height, width = read_picture(path).shape
        return ClipFacts(1, height, width, None)
    return probe_video(path)


def clip_frames(path: str | Path, positions: Sequence[int]) -> Iterator[Tensor]:
    """Decode frames of a clip, one in memory at a time.

    Args:
        path: File that `probe_clip` has read without an error.
        positions: Positions of the frames, increasing; not empty.

    Yields:
        Frames `(3, H, W)` float32 in [0, 1]: as stored, whatever their timestamps; pictures of an
        animation are repeated for their duration. Transparency is dropped, and the orientation of
        a photo or video is applied.

    Raises:
        TuningError: The file cannot be read, or has changed since it was probed.
    """
    path = _existing(path)
    kind = _kind(path)
    if kind == "animation":
        frames: Iterator[Any] = animation_frames(path, positions)
    elif kind == "picture":
        yield read_picture(path)
        return
    else:
        frames = video_frames(path, positions)
    for frame in frames:
        yield as_tensor(frame)


def clip_windows(
    path: str | Path, positions: Sequence[int], most: int
) -> Generator[Tensor, None, None]:
    """Decode frames of a clip in windows `(n, 3, H, W)`, n up to `most`, one in memory at a time.

    Raises:
        TuningError: As `clip_frames`.
    """
    frames = clip_frames(path, positions)
    while window := list(islice(frames, most)):
        yield torch.stack(window)


def read_clip(path: str | Path, select: SelectFrames | None = None) -> Tensor:
    """Read a clip.

    Args:
        path: File as for `probe_clip`.
        select: Positions to read, which alone are held in memory; None for all.

    Returns:
        `(f, 3, H, W)` float32 in [0, 1]; see `clip_frames`.

    Raises:
        TuningError: As `probe_clip`.
    """
    facts = probe_clip(path)
    chosen = range(facts.frames) if select is None else sorted(set(select(facts.frames)))
    clip = torch.empty(len(chosen), 3, facts.height, facts.width)
    for place, frame in enumerate(clip_frames(path, chosen)):
        clip[place] = frame
    return clip


def side_by_side(before: Tensor, after: Tensor, gap: int = 4) -> Tensor:
    """Put two clips next to each other, with a white bar between them.

    Args:
        before: Left clip `(f, 3, H, W)` in [0, 1].
        after: Right clip of the same shape.
        gap: Width of the bar in pixels.

    Returns:
        One clip `(f, 3, H, 2 W + gap)`.

    Raises:
        TuningError: The shapes differ.
    """
    if before.shape != after.shape:
        raise TuningError(
            f"clips side by side: got {tuple(before.shape)} and {tuple(after.shape)}; "
            "both must have the same number of frames and the same size"
        )
    bar = before.new_ones((*before.shape[:3], gap))
    return torch.cat([before, bar, after], dim=3)


def _bytes(frames: Tensor, enlarge: int) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    frames = frames.detach().float().cpu().clamp(0, 1)
    frames = frames.repeat_interleave(enlarge, dim=2).repeat_interleave(enlarge, dim=3)
    video: np.ndarray[Any, np.dtype[np.uint8]] = (
        (frames * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    )
    return video


def _picture_bytes(video: "np.ndarray[Any, np.dtype[np.uint8]]", suffix: str, fps: float) -> bytes:
    """Encode a gif or png in memory: imageio's file writer leaves a broken file on a full disk."""
    if suffix == ".gif":
        return gif_bytes(video, fps)
    strip = video.transpose(1, 0, 2, 3).reshape(video.shape[1], -1, 3)
    content: bytes = iio.imwrite("<bytes>", strip, extension=".png")
    return content


def _existing(path: str | Path) -> Path:
    if fault := file_name_fault(str(path)):
        raise TuningError(f"clip {str(path)[:60]!a}: {fault}")
    path = Path(path)
    if not path.is_file():
        raise TuningError(f"clip {path}: no such file")
    return path


def _kind(path: Path) -> Literal["animation", "picture", "video"]:
    if has_picture_signature(path):
        return "animation" if is_animation(path) else "picture"
    return "picture" if path.suffix.lower() in PICTURE_SUFFIXES else "video"


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
