"""The frames that a video file stores, by ffmpeg: how many, of what size, when, and what they show.

A file stores frames, each with its time. Players and most readers repeat and drop frames so that
they come at one rate; here every stored frame comes once, in its order, whatever its time. The
rate of a file is that of its frames over the time they span.
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
"""A rate measured from times, which webm rounds to milliseconds, is the header's if so near."""

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
"""What ffmpeg's errors and warnings hold where a file is damaged; others tell of odd but whole
files."""

_VIDEO = re.compile(r"Stream #0:\d+.*: Video: ")
_RATE = re.compile(r", ([\d.]+)(k?) fps")
_DURATION = re.compile(r"Duration: (\d+):(\d\d):(\d\d\.\d+)")
_WORST = re.compile(r"\[(error|fatal|panic|warning)\]")


@dataclass(frozen=True)
class ClipFacts:
    """What a video holds.

    Attributes:
        frames: That it stores.
        height: Pixels, as it is shown.
        width: Pixels, as it is shown.
        fps: Frames a second over the time they span; None for a single one.
    """

    frames: int
    height: int
    width: int
    fps: float | None


def look_at_video(path: Path) -> ClipFacts:
    """Decode a video once, to count its frames.

    Raises:
        TuningError: It is no video, holds no frame, or is cut short or damaged, with how many of
            its frames can be decoded.
    """
    command = [ffmpeg.executable(), "-nostdin", "-hide_banner", "-nostats", "-v", "level+info"]
    command += ["-i", ffmpeg.file_url(path), "-map", "0:V:0", *ffmpeg.as_stored()]
    # A wrapped frame is a few hundred bytes: no pixel goes through the pipe.
    command += ["-c:v", "wrapped_avframe", "-f", "framecrc", "-"]
    done = subprocess.run(command, capture_output=True, check=False)
    lines = ffmpeg.said(done.stderr)
    size, times = _times(done.stdout.decode(errors="replace"))
    broken = next((line for line in lines if _damage(line)), None)
    why = missing_end(path)
    if not times or size is None:
        told = ffmpeg.plain(broken) if broken else _first_error(lines, done.returncode)
        raise TuningError(f"clip {path}: not a video that can be read ({why or told})")
    header, duration = _header(lines)
    why = why or (ffmpeg.plain(broken) if broken else None)
    if why is None and done.returncode:
        why = _first_error(lines, done.returncode)
    if why is not None:
        wanted = round(duration * header) if duration and header else 0
        of = f" of about {wanted}" if wanted > len(times) else ""
        raise TuningError(
            f"clip {path}: cut short or damaged, {len(times)}{of} frames can be decoded ({why}); "
            "copy or write it again"
        )
    return ClipFacts(len(times), size[0], size[1], _rate(times, header))


def video_frames(path: Path, positions: Sequence[int]) -> Iterator[Frame]:
    """Decode frames of a video.

    Args:
        path: A file that `look_at_video` has found whole.
        positions: Of the frames, increasing, counted from 0; not empty.

    Yields:
        `(H, W, 3)`, each of them, one at a time.

    Raises:
        TuningError: The file cannot be read, or is shorter than it was when looked at.
    """
    first, last = positions[0], positions[-1]
    stride = positions[1] - first if len(positions) > 1 else 1
    if any(b - a != stride for a, b in pairwise(positions)):
        stride = 1  # those between are dropped here
    picked = range(first, last + 1, stride)
    filters = f"select='between(n\\,{first}\\,{last})*not(mod(n-{first}\\,{stride}))'"
    command = [ffmpeg.executable(), "-nostdin", "-hide_banner", "-nostats", "-v", "error"]
    command += ["-i", ffmpeg.file_url(path), "-map", "0:V:0", "-vf", filters, *ffmpeg.as_stored()]
    command += ["-frames:v", str(len(picked)), "-c:v", "ppm", "-pix_fmt", "rgb24"]
    command += ["-f", "image2pipe", "-"]
    wanted, came = set(positions), 0
    with tempfile.TemporaryFile() as errors:  # a pipe that nobody empties would stop it
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        assert running.stdout is not None
        try:
            for position, frame in zip(picked, _ppm(running.stdout), strict=False):
                if position in wanted:
                    came += 1
                    yield frame
            code = running.wait()
        finally:
            running.stdout.close()
            running.kill()
            running.wait()
        if came < len(positions):
            errors.seek(0)
            lines = ffmpeg.said(errors.read())
            why = f" ({ffmpeg.plain(lines[0])})" if lines else ""
            if code and not came:
                raise TuningError(f"clip {path}: not a video that can be read{why}")
            raise TuningError(
                f"clip {path}: {came} frames decoded from {first} on at a stride of "
                f"{stride}, but it had {len(positions)} when it was checked{why}; "
                "restore the file, or remove its row"
            )


def _times(crc: str) -> tuple[tuple[int, int] | None, list[float]]:
    """Height and width, and each frame's time in seconds, of ffmpeg's list of checksums."""
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
    """The rate of the video and the duration of the file, as its header says them."""
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
    """Frames a second."""
    span = max(times) - min(times)
    if len(times) < 2 or not span > 0:
        return header
    measured = (len(times) - 1) / span
    if header is None or abs(measured / header - 1) > SAME_RATE:
        return measured
    for whole in (24, 30, 48, 60, 120):  # two digits of 24000/1001 are not enough
        if header == round(whole / 1.001, 2):
            return whole / 1.001
    return header


def _damage(line: str) -> bool:
    worst, low = _WORST.search(line), line.lower()
    return worst is not None and any(word in low for word in DAMAGE)


def _first_error(lines: list[str], code: int) -> str:
    errors = [line for line in lines if _WORST.search(line)]
    if any("matches no streams" in line for line in errors):
        return "it holds sound or pictures, and no video"
    return ffmpeg.plain(errors[0]) if errors else ffmpeg.reason([], code)


def _ppm(stream: IO[bytes]) -> Iterator[Frame]:
    """Pictures of a stream: `P6`, width and height, 255, each on a line; then the pixels."""
    while stream.readline() == b"P6\n":
        width, height = map(int, stream.readline().split())
        stream.readline()
        pixels = stream.read(height * width * 3)
        if len(pixels) < height * width * 3:
            return
        yield np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
