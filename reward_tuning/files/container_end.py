"""Detect files that are cut short, by the lengths that they store.

ffmpeg reads a file that is cut between two frames up to the cut, without an error.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
GIF_TRAILER, GIF_IMAGE, GIF_EXTENSION = 0x3B, 0x2C, 0x21  # block introducers of GIF89a
ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
ASF_LIVE = 1  # flag of a live recording, which stores no size
OGG_FIRST, OGG_LAST = 2, 4  # flags of the first and the last page of a stream
TS_SYNC, TS_PACKETS = 0x47, ((188, 0), (192, 4))  # packet length and position of its sync byte
LARGE = 1  # size of an MP4 box whose real size follows its name, in 8 bytes
OPEN = 0  # size of an MP4 box that reaches to the end of the file


def missing_end(path: Path) -> str | None:
    """Return how a file is cut short, or None if it is whole.

    Checks MP4, QuickTime, Matroska, WebM, AVI, ASF (wmv), Ogg and GIF; of FLV and MPEG transport
    streams, which store no total length, only the last tag or packet.

    Args:
        path: Any file; one of another format counts as whole.

    Raises:
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(16)
        file.seek(0)
        if start[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            expected = _boxes(file, size)
        elif start[:4] == EBML:
            expected = _segment(file)
        elif start[:4] == b"RIFF":
            expected = int.from_bytes(start[4:8], "little") + 8
        elif start[:6] in (b"GIF87a", b"GIF89a"):
            return None if _gif_ends(file) else "its end is missing"
        elif start[:4] == b"OggS":
            return _ogg_fault(file, size)
        elif start == ASF_HEADER:
            expected = _asf_size(file)
        elif start[:3] == b"FLV":
            expected = _flv_tags(file, size)
        else:
            expected = _whole_packets(file, size)
    if expected is None or expected <= size:
        return None
    return f"it ends after {size} of {expected} bytes"


def _boxes(file: IO[bytes], size: int) -> int | None:
    """Return the end of the last box of an MP4; None if it is not stored."""
    place = 0
    while place + 8 <= size:
        file.seek(place)
        head = file.read(16)
        length, name = int.from_bytes(head[:4], "big"), head[4:8]
        if not (name.isascii() and name.decode().isprintable()):
            return None  # some cameras pad their files with arbitrary bytes
        if length == LARGE:
            length = int.from_bytes(head[8:16], "big")
        if length == OPEN:
            return None
        if length < 8:
            return None
        place += length
    return place


def _segment(file: IO[bytes]) -> int | None:
    """Return the end of a Matroska segment; None for an open one, as in live recordings."""
    while True:
        name = file.read(4)
        length = _ebml_length(file)
        if len(name) < 4 or length is None:
            return None
        if name == SEGMENT:
            return file.tell() + length
        file.seek(length, 1)


def _ebml_length(file: IO[bytes]) -> int | None:
    """Read a length whose leading bits give its number of bytes; None for all ones (unknown)."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & ((1 << (7 - more)) - 1)]) + file.read(more), "big")
    return None if value == (1 << 7 * (more + 1)) - 1 else value


def _asf_size(file: IO[bytes]) -> int | None:
    """Return the file size in the header of an ASF file."""
    head = file.read(30)
    end, place = int.from_bytes(head[16:24], "little"), len(head)
    while place < end:
        file.seek(place)
        name, length = file.read(16), int.from_bytes(file.read(8), "little")
        if name == ASF_PROPERTIES:
            properties = file.read(68)
            live = int.from_bytes(properties[64:68], "little") & ASF_LIVE
            return None if live else int.from_bytes(properties[16:24], "little")
        if length < 24:
            return None
        place += length
    return None


def _ogg_fault(file: IO[bytes], size: int) -> str | None:
    """Return what an Ogg file lacks at its end: part of a page, or the last page of a stream."""
    place, open_streams = 0, set()
    while place < size:
        file.seek(place)
        head = file.read(27)
        if head[:4] != b"OggS" or len(head) < 27:
            return "its end is missing"
        place += 27 + head[26] + sum(file.read(head[26]))
        if head[5] & OGG_FIRST:
            open_streams.add(head[14:18])
        if head[5] & OGG_LAST:
            open_streams.discard(head[14:18])
    if place > size:
        return f"it ends after {size} of at least {place} bytes"
    return "its end is missing" if open_streams else None


def _flv_tags(file: IO[bytes], size: int) -> int:
    """Return the end of the last tag of an FLV and of the length that follows it."""
    place = int.from_bytes(file.read(9)[5:9], "big") + 4
    while place < size:
        file.seek(place)
        head = file.read(11)
        place += 11 + int.from_bytes(head[1:4], "big") + 4
    return place


def _whole_packets(file: IO[bytes], size: int) -> int | None:
    """Return the end of the last packet of a transport stream; None for another file."""
    head = file.read(1000)
    for length, sync in TS_PACKETS:
        marks = head[sync::length]
        if len(marks) > 3 and set(marks) == {TS_SYNC}:
            return -(-size // length) * length
    return None


def _gif_ends(file: IO[bytes]) -> bool:
    """Return whether a GIF reaches its trailer."""
    head = file.read(13)
    if len(head) < 13:
        return False
    file.seek(_table(head[10]), 1)
    while mark := file.read(1):
        if mark[0] == GIF_TRAILER:
            return True
        if mark[0] == GIF_IMAGE:
            descriptor = file.read(9)
            if len(descriptor) < 9:
                return False
            file.seek(_table(descriptor[8]) + 1, 1)
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
    """Return the number of bytes of a colour table."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
