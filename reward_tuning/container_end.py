"""Whether a file ends where its own lengths say: a copy that broke off does not.

ffmpeg reads what is there of a file that is cut between two frames, and says nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
GIF_TRAILER, GIF_IMAGE, GIF_EXTENSION = 0x3B, 0x2C, 0x21
LARGE = 1  # an MP4 box of this size has a length of 8 bytes behind its name
OPEN = 0  # and of this one reaches to the end


def missing_end(path: Path) -> str | None:
    """Tell that a file ends too early, by the lengths of MP4, QuickTime, Matroska, WebM, AVI, GIF.

    Args:
        path: Of any file; one of another kind is taken as whole.

    Raises:
        OSError: It cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(12)
        file.seek(0)
        if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            wanted = _boxes(file, size)
        elif start[:4] == EBML:
            wanted = _segment(file)
        elif start[:4] == b"RIFF":
            wanted = int.from_bytes(start[4:8], "little") + 8
        elif start[:6] in (b"GIF87a", b"GIF89a"):
            return None if _gif_ends(file) else "its end is missing"
        else:
            return None
    if wanted is None or wanted <= size:
        return None
    return f"it ends after {size} of {wanted} bytes"


def _boxes(file: IO[bytes], size: int) -> int | None:
    """Where the last box of an MP4 ends; None where it does not say."""
    place = 0
    while place + 8 <= size:
        file.seek(place)
        head = file.read(16)
        length, name = int.from_bytes(head[:4], "big"), head[4:8]
        if not (name.isascii() and name.decode().isprintable()):
            return None  # cameras fill files up with anything
        if length == LARGE:
            length = int.from_bytes(head[8:16], "big")
        if length == OPEN:
            return None
        if length < 8:
            return None
        place += length
    return place


def _segment(file: IO[bytes]) -> int | None:
    """Where a Matroska segment ends; None where it is open, as live recordings are."""
    while True:
        name = file.read(4)
        length = _ebml_length(file)
        if len(name) < 4 or length is None:
            return None
        if name == SEGMENT:
            return file.tell() + length
        file.seek(length, 1)


def _ebml_length(file: IO[bytes]) -> int | None:
    """A length whose first bits say how many bytes it has; None for all ones: not known."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & ((1 << (7 - more)) - 1)]) + file.read(more), "big")
    return None if value == (1 << 7 * (more + 1)) - 1 else value


def _gif_ends(file: IO[bytes]) -> bool:
    """Whether a GIF comes to its trailer."""
    head = file.read(13)
    if len(head) < 13:
        return False
    file.seek(_table(head[10]), 1)
    while mark := file.read(1):
        if mark[0] == GIF_TRAILER:
            return True
        if mark[0] == GIF_IMAGE:
            about = file.read(9)
            if len(about) < 9:
                return False
            file.seek(_table(about[8]) + 1, 1)
        elif mark[0] == GIF_EXTENSION:
            file.seek(1, 1)
        else:
            return False
        while length := file.read(1):
            if not length[0]:
                break
            file.seek(length[0], 1)
    return False


def _table(flags: int) -> int:
    """Bytes of a colour table."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
