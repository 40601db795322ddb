"""Clips inside a page: each file once, with a still, small enough together.

Browsers play H.264 in mp4 with 4:2:0 colour, which is what our own clips are; anything else is
encoded again. If all clips together exceed the room that the page has, they are encoded smaller,
and if that is not enough, prompts are left out. The page says so.
"""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reward_tuning.errors import TuningError
from reward_tuning.files import ffmpeg

ROOM = 21_000_000
"""Characters that clips and stills may take as base64: Plotly takes 4.8 MB of the 30 MB of a page,
the rest is for the data and for estimates that are too low."""
LEVELS = ((20, 0), (25, 0), (26, 512), (30, 384), (34, 256))
"""Quality (x264's crf, larger is coarser) and longest side in pixels (0: as it is), from fine to
coarse."""
TRIED = 4  # clips that are encoded at each level to estimate the size of all
PLAYABLE = (b"h264", b"avc1")
STILL_QUALITY = 82
STILL_SIDE = 384


@dataclass(frozen=True)
class Clip:
    """A clip in a page.

    Attributes:
        video: The file's bytes.
        still: Its first frame as JPEG, for browsers without H.264, for print, and until it plays.
        frames: Number of frames.
        fps: Frames per second.
        width: Pixels.
        height: Pixels.
    """

    video: bytes
    still: bytes
    frames: int
    fps: float
    width: int
    height: int

    @property
    def room(self) -> int:
        """Characters that it takes in the page."""
        return 4 * (len(self.video) + len(self.still)) // 3

    def facts(self) -> dict[str, Any]:
        """Return what the scripts need to know of it, with the still as a data address."""
        still = base64.b64encode(self.still).decode()
        return {
            "frames": self.frames,
            "fps": self.fps,
            "width": self.width,
            "height": self.height,
            "still": f"data:image/jpeg;base64,{still}",
        }


@dataclass(frozen=True)
class ClipSet:
    """The clips of a page.

    Attributes:
        clips: Name to clip; equal files have one name.
        names: For each side, prompt index to the name of its clip.
        notes: What was left out or encoded again, in sentences for the reader.
    """

    clips: dict[str, Clip] = field(default_factory=dict)
    names: list[dict[int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def encoded(self) -> dict[str, str]:
        """Return the base64 of each clip."""
        return {name: base64.b64encode(c.video).decode() for name, c in self.clips.items()}


def collect_clips(folder: Path, sides: Sequence[Mapping[int, str]], *, room: int = ROOM) -> ClipSet:
    """Read the clips of every side, encode again what needs it, and fit them into the page.

    Args:
        folder: Folder that the paths are relative to.
        sides: For each side, prompt index to path.
        room: Characters that the clips may take.

    Raises:
        TuningError: Clips have to be encoded smaller, and that fails, as on a full disk.
    """
    found, names, unread = _read(folder, sides)
    notes = [f"{_counted(len(unread), 'clip')} could not be read: {'; '.join(unread[:5])}"]
    notes = notes if unread else []
    clips, note = _fitted(found, room)
    notes += [note] if note else []
    names, dropped = _within(clips, names, room)
    if dropped:
        kept = len({index for side in names for index in side})
        notes.append(
            f"Clips of {_counted(kept, 'prompt')} are shown; those of {dropped} more would make "
            "the page larger than 30 MB. They are in the folder of the report."
        )
    used = {name for side in names for name in side.values()}
    return ClipSet({name: c for name, c in clips.items() if name in used}, names, notes)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _read(
    folder: Path, sides: Sequence[Mapping[int, str]]
) -> tuple[dict[str, Clip], list[dict[int, str]], list[str]]:
    """Return clips by the hash of their content, their names by side and prompt, and faults."""
    clips: dict[str, Clip] = {}
    names: list[dict[int, str]] = []
    unread: list[str] = []
    for side in sides:
        of_side = {}
        for index, relative in sorted(side.items()):
            try:
                content = _inside(folder, relative).read_bytes()
                name = hashlib.sha256(content).hexdigest()[:12]
                if name not in clips:
                    clips[name] = _opened(content)
            except (OSError, ValueError) as error:
                unread.append(f"{relative} ({getattr(error, 'strerror', None) or error})")
                continue
            of_side[index] = name
        names.append(of_side)
    return clips, names, unread


def _inside(folder: Path, relative: str) -> Path:
    path = Path(relative)
    if path.is_absolute() or ".." in path.parts or "\0" in relative:
        raise ValueError("outside of the folder")
    if not (folder / path).resolve().is_relative_to(folder.resolve()):
        raise ValueError("a link to outside of the folder")
    return folder / path


def _opened(content: bytes) -> Clip:
    """Read a clip's facts and its first frame; encode it again where browsers would not play it.

    Raises:
        ValueError: It is no video.
    """
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "clip.mp4"
        path.write_bytes(content)
        clip, playable = _probed(path, content)
        return clip if playable else _encoded(clip, *LEVELS[0])


def _probed(path: Path, content: bytes) -> tuple[Clip, bool]:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # faults are reported in the page
    import cv2

    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        there, frame = capture.read()
        if not there:
            raise ValueError("not a video that can be read")
        fps = float(capture.get(cv2.CAP_PROP_FPS))
        frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        codec = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little")
        colour = int(capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)).to_bytes(4, "little")
    finally:
        capture.release()
    height, width = frame.shape[:2]
    larger = max(height, width)
    if larger > STILL_SIDE:
        size = (round(width * STILL_SIDE / larger), round(height * STILL_SIDE / larger))
        frame = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    _, still = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, STILL_QUALITY])
    clip = Clip(
        content, still.tobytes(), max(frames, 1), fps if fps > 0 else 1.0, int(width), int(height)
    )
    playable = codec in PLAYABLE and colour == b"I420" and content[4:8] == b"ftyp"
    return clip, playable


def _encoded(clip: Clip, crf: int, side: int) -> Clip:
    """Encode a clip at a quality, its longer side at most `side` pixels (0: as it is).

    Raises:
        TuningError: ffmpeg failed; with its reason.
    """
    limit = side or max(clip.width, clip.height)
    share = min(1.0, limit / max(clip.width, clip.height))
    width, height = (max(2, 2 * round(share * n / 2)) for n in (clip.width, clip.height))
    with tempfile.TemporaryDirectory() as place:
        source, target = Path(place) / "from", Path(place) / "to.mp4"
        source.write_bytes(clip.video)
        command = [ffmpeg.executable(), "-y", "-v", "error", "-i", ffmpeg.file_url(source)]
        command += ["-an", "-vf", f"scale={width}:{height}:flags=area", "-vcodec", "libx264"]
        command += ["-pix_fmt", "yuv420p", "-crf", str(crf), "-bitexact", ffmpeg.file_url(target)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            lines = ffmpeg.messages(done.stderr)
            reason = ffmpeg.failure(lines, done.returncode)
            raise TuningError(f"a clip cannot be encoded again ({reason}); free some space")
        video = target.read_bytes()
    return replace(clip, video=video, width=width, height=height)


def _fitted(clips: Mapping[str, Clip], room: int) -> tuple[dict[str, Clip], str | None]:
    """Encode all clips at the finest level at which they fit; the coarsest where none does."""
    total = sum(clip.room for clip in clips.values())
    if total <= room:
        return dict(clips), None
    some = list(clips.values())[:: max(1, len(clips) // TRIED)][:TRIED]
    before = sum(clip.room for clip in some)
    for crf, side in LEVELS:
        after = sum(_encoded(clip, crf, side).room for clip in some)
        if total * after / before <= 0.9 * room:
            break
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # each waits for an ffmpeg of its own
        encoded = pool.map(lambda clip: _encoded(clip, crf, side), clips.values())
        small = dict(zip(clips, encoded, strict=True))
    size = f", at most {side} pixels wide or high" if side else ""
    note = f"Clips are encoded again for this page (crf {crf}{size}), so that it stays below 30 MB."
    return small, note


def _within(
    clips: Mapping[str, Clip], names: Sequence[Mapping[int, str]], room: int
) -> tuple[list[dict[int, str]], int]:
    """Keep the first prompts whose clips fit; return the names, and how many prompts were dropped.

    A prompt stays with all of its strengths, or goes with all: the choice does not look at scores.
    """
    order = sorted({index for side in names for index in side})
    kept: set[str] = set()
    used = 0
    last = len(order)
    for place, index in enumerate(order):
        new = {side[index] for side in names if index in side} - kept
        used += sum(clips[name].room for name in new)
        if used > room:
            last = place
            break
        kept |= new
    chosen = set(order[:last])
    within = [{i: name for i, name in side.items() if i in chosen} for side in names]
    return within, len(order) - last
