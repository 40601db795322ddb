"""The ffmpeg program: its options in every supported version, and its messages.

The versions that imageio-ffmpeg has shipped, 4.2 to 9.0, name the same options differently.
"""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import imageio_ffmpeg

NEW_NAMES = 7
"""First version that has both `-fps_mode` (5.1) and `-enc_time_base demux` (6.1); 9.0 no longer has
the old `-vsync` and `-1`."""

FULL = "No space left on device"
_ADDRESS = re.compile(r" @ 0x[0-9a-f]+")
_TAGS = re.compile(r"^(\[[^\]]*\] ?)+")


def executable() -> str:
    """Return the path of the program; `IMAGEIO_FFMPEG_EXE` overrides it."""
    found: str = imageio_ffmpeg.get_ffmpeg_exe()
    return found


def file_url(path: Path) -> str:
    """Return a file's URL: ffmpeg would take a colon for a protocol, a dash for an option."""
    return f"file:{path}"


def passthrough_options() -> list[str]:
    """Return output options that keep each stored frame once, at its own timestamp."""
    if _major(executable()) >= NEW_NAMES:
        return ["-fps_mode", "passthrough", "-enc_time_base", "demux"]
    return ["-vsync", "passthrough", "-enc_time_base", "-1"]


@cache
def _major(program: str) -> int:
    """Return the major version; a build without a version number counts as new."""
    done = subprocess.run([program, "-version"], capture_output=True, check=False)
    found = re.match(r"ffmpeg version n?(\d+)\.", done.stdout.decode(errors="replace"))
    return int(found[1]) if found else NEW_NAMES


def messages(stderr: bytes) -> list[str]:
    """Return the lines of ffmpeg's messages, without memory addresses."""
    lines = stderr.decode(errors="replace").replace("\r", "\n").splitlines()
    return [_ADDRESS.sub("", line).strip() for line in lines if line.strip()]


def without_tags(line: str) -> str:
    """Return a message without its leading tags, such as `[h264] [error]`."""
    return _TAGS.sub("", line).strip() or line


def failure(lines: Iterable[str], code: int) -> str:
    """Return why ffmpeg failed, in its own words.

    A full disk is reported in one of the first lines, when the last is `Conversion failed!`.

    Args:
        lines: Lines of `messages`.
        code: Exit code, negative for a signal.
    """
    lines = list(lines)
    if any(FULL in line for line in lines):
        return FULL
    if lines:
        return without_tags(lines[-1])
    if code < 0:  # such as a file-size limit, which kills it without a message
        return f"ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"
