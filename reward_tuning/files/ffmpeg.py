"""ffmpeg as a program: how it is called, whatever its version, and what it says.

The versions that imageio-ffmpeg has brought, 4.2 to 9.0, name the same things differently.
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
"""Since 7.0, `-fps_mode` (5.1) and `-enc_time_base demux` (6.1) are both known; 9.0 knows the old
`-vsync` and `-1` no more."""

FULL = "No space left on device"
_ADDRESS = re.compile(r" @ 0x[0-9a-f]+")
_TAGS = re.compile(r"^(\[[^\]]*\] ?)+")


def executable() -> str:
    """The path of the program; `IMAGEIO_FFMPEG_EXE` names another."""
    found: str = imageio_ffmpeg.get_ffmpeg_exe()
    return found


def file_url(path: Path) -> str:
    """A file's name as ffmpeg takes it: one with a colon or a dash is no protocol or option."""
    return f"file:{path}"


def as_stored() -> list[str]:
    """Output options: each stored frame once, none repeated or dropped for a rate, at its time."""
    if _major(executable()) >= NEW_NAMES:
        return ["-fps_mode", "passthrough", "-enc_time_base", "demux"]
    return ["-vsync", "passthrough", "-enc_time_base", "-1"]


@cache
def _major(program: str) -> int:
    """The first number of the version; that of a build without a number is the newest."""
    done = subprocess.run([program, "-version"], capture_output=True, check=False)
    found = re.match(r"ffmpeg version n?(\d+)\.", done.stdout.decode(errors="replace"))
    return int(found[1]) if found else NEW_NAMES


def said(stderr: bytes) -> list[str]:
    """The lines of its messages, without addresses of memory."""
    lines = stderr.decode(errors="replace").replace("\r", "\n").splitlines()
    return [_ADDRESS.sub("", line).strip() for line in lines if line.strip()]


def plain(line: str) -> str:
    """A line without the names of the parts that say it, such as `[h264] [error]`."""
    return _TAGS.sub("", line).strip() or line


def reason(lines: Iterable[str], code: int) -> str:
    """Why it failed, in its own words.

    A full disk stands in its first lines, and `Conversion failed!` in its last.

    Args:
        lines: Its messages.
        code: Its exit code, negative for a signal.
    """
    lines = list(lines)
    if any(FULL in line for line in lines):
        return FULL
    if lines:
        return plain(lines[-1])
    if code < 0:  # such as a limit on the size of files, which ends it without a word
        return f"ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"
