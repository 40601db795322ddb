"""Read the frames that a video file stores, with ffmpeg: their number, size, rate and pixels.

A file stores frames with timestamps. Players and most readers repeat and drop frames to reach a
constant rate; this reader returns each stored frame once, in order, whatever its timestamp. The
rate of a file is the number of intervals between frames over the time that they span.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from reward_tuning.errors import TuningError
from reward_tuning.files import ffmpeg
from reward_tuning.files.container_end import missing_end

Frame = NDArray[np.uint8]

SAME_RATE = 0.01
"""Relative distance within which the header's rate is taken for the measured one: webm rounds
timestamps to milliseconds."""

DAMAGE = (
    "partial file",
    "ended prematurely",
    "truncat",
    "corrupt",
    "invalid nal unit",
    "error splitting the input",
    "error while decoding",
    "decoding error",
    "decode_slice",
    "error submitting packet",
    "invalid data found",
    "missing picture",
    "ebml number",
    "exceeds containing",
    "error parsing frame",
    "during demuxing",
    "header parsing",
    "invalid dropping",
)
"""Parts of ffmpeg's errors and warnings on damaged files; other messages are about unusual but
whole files."""

_VIDEO = re.compile(r"Stream #0:\d+.*: Video: ")
_RATE = re.compile(r", ([\d.]+)(k?) fps")
_DURATION = re.compile(r"Duration: (\d+):(\d\d):(\d\d\.\d+)")
_WORST = re.compile(r"\[(error|fatal|panic|warning)\]")


@dataclass(frozen=True)
class ClipFacts:
    """Size and rate of a clip.

    Attributes:
        frames: Number of stored frames.
        height: Height in pixels, after rotation.
        width: Width in pixels, after rotation.
        fps: Frames per second over the time that they span; None for a single frame.
    """

    frames: int
    height: int
    width: int
    fps: float | None


def probe_video(path: Path) -> ClipFacts:
    """Decode a video once, to count its frames.

    Raises:
        TuningError: The file is not a video, has no frame, or is cut short or damaged; the message
            gives the number of frames that can be decoded.
    """
    command = [ffmpeg.executable(), "-nostdin", "-hide_banner", "-nostats", "-v", "level+info"]
    command += ["-i", ffmpeg.file_url(path), "-map", "0:V:0", *ffmpeg.passthrough_options()]
    # A wrapped frame is a few hundred bytes: no pixel goes through the pipe.
    command += ["-c:v", "wrapped_avframe", "-f", "framecrc", "-"]
    done = subprocess.run(command, capture_output=True, check=False)
    lines = ffmpeg.messages(done.stderr)
    size, times = _times(done.stdout.decode(errors="replace"))
    broken = next((line for line in lines if _damage(line)), None)
    why = missing_end(path)
    if not times or size is None:
        why = why or (ffmpeg.without_tags(broken) if broken else None)
        why = why or _first_error(lines, done.returncode)
        raise TuningError(f"clip {path}: not a video that can be read ({why})")
    header, duration = _header(lines)
    why = why or (ffmpeg.without_tags(broken) if broken else None)
    if why is None and done.returncode:
        why = _first_error(lines, done.returncode)
    if why is not None:
        expected = round(duration * header) if duration and header else 0
        of = f" of about {expected}" if expected > len(times) else ""
        raise TuningError(
            f"clip {path}: cut short or damaged, {len(times)}{of} frames can be decoded ({why}); "
            "copy or write it again"
        )
    return ClipFacts(len(times), size[0], size[1], _rate(times, header))


def video_frames(path: Path, positions: Sequence[int]) -> Iterator[Frame]:
    """Decode frames of a video.

    Args:
        path: File that `probe_video` has read without an error.
        positions: Positions of the frames, increasing, counted from 0; not empty.

    Yields:
        Frames `(H, W, 3)`, one at a time.

    Raises:
        TuningError: The file cannot be read, or has fewer frames than when it was probed.
    """
    first, last = positions[0], positions[-1]
    stride = positions[1] - first if len(positions) > 1 else 1
    if any(b - a != stride for a, b in pairwise(positions)):
        stride = 1  # ffmpeg returns every frame, and the loop below drops the others
    picked = range(first, last + 1, stride)
    filters = f"select='between(n\\,{first}\\,{last})*not(mod(n-{first}\\,{stride}))'"
    command = [ffmpeg.executable(), "-nostdin", "-hide_banner", "-nostats", "-v", "error"]
    command += [
        "-i",
        ffmpeg.file_url(path),
        "-map",
        "0:V:0",
        "-vf",
        filters,
        *ffmpeg.passthrough_options(),
    ]
    command += ["-frames:v", str(len(picked)), "-c:v", "ppm", "-pix_fmt", "rgb24"]
    command += ["-f", "image2pipe", "-"]
    requested, yielded = set(positions), 0
    with tempfile.TemporaryFile() as errors:  # a full pipe that nobody reads would block ffmpeg
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        assert running.stdout is not None
        try:
            for position, frame in zip(picked, _ppm(running.stdout), strict=False):
                if position in requested:
                    yielded += 1
                    yield frame
            code = running.wait()
        finally:
            running.stdout.close()
            running.kill()
            running.wait()
        if yielded < len(positions):
            errors.seek(0)
            lines = ffmpeg.messages(errors.read())
            why = f" ({ffmpeg.without_tags(lines[0])})" if lines else ""
            if code and not yielded:
                raise TuningError(f"clip {path}: not a video that can be read{why}")
            raise TuningError(
                f"clip {path}: {yielded} frames decoded from {first} on at a stride of "
                f"{stride}, but it had {len(positions)} when it was checked{why}; "
                "restore the file, or remove its row"
            )


def _times(crc: str) -> tuple[tuple[int, int] | None, list[float]]:
    """Read the size and each frame's time in seconds from ffmpeg's list of checksums."""
    size, base, times = None, 1.0, []
    for line in crc.splitlines():
        if line.startswith("#dimensions 0: "):
            width, height = line.rpartition(" ")[2].split("x")
            size = int(height), int(width)
        elif line.startswith("#tb 0: "):
            over, under = line.rpartition(" ")[2].split("/")
            base = int(over) / int(under)
        elif not line.startswith("#"):
            times.append(int(line.split(",")[2]) * base)
    return size, times


def _header(lines: list[str]) -> tuple[float | None, float | None]:
    """Return the rate of the video and the duration of the file in its header."""
    rate = duration = None
    for line in lines:
        if "Output #0" in line:
            break
        if rate is None and _VIDEO.search(line) and (found := _RATE.search(line)):
            rate = float(found[1]) * (1000 if found[2] else 1)
        if found := _DURATION.search(line):
            duration = int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])
    return rate, duration


def _rate(times: list[float], header: float | None) -> float | None:
    """Return frames per second, measured, or as in the header if that is close."""
    span = max(times) - min(times)
    if len(times) < 2 or not span > 0:
        return header
    measured = (len(times) - 1) / span
    if header is None or abs(measured / header - 1) > SAME_RATE:
        return measured
    for whole in (24, 30, 48, 60, 120):  # ffmpeg prints 24000/1001 as 23.98
        if header == round(whole / 1.001, 2):
            return whole / 1.001
    return header


def _damage(line: str) -> bool:
    worst, low = _WORST.search(line), line.lower()
    return worst is not None and any(word in low for word in DAMAGE)


def _first_error(lines: list[str], code: int) -> str:
    errors = [line for line in lines if _WORST.search(line)]
    if any("matches no streams" in line for line in errors):
        return "it has audio or pictures, and no video"
    return ffmpeg.without_tags(errors[0]) if errors else ffmpeg.failure([], code)


def _ppm(stream: IO[bytes]) -> Iterator[Frame]:
    """Read the pictures of a PPM stream: `P6`, width and height, 255, each on a line; pixels."""
    while stream.readline() == b"P6\n":
        width, height = map(int, stream.readline().split())
        stream.readline()
        pixels = stream.read(height * width * 3)
        if len(pixels) < height * width * 3:
            return
        yield np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
