"""Encode GIFs that store every frame of a clip, even a frame that repeats the last.

Pillow's writer stores a repeated frame as a longer duration, rounded to hundredths of a second, and
a still of 9 frames as one. Here each frame is a picture of its own: the rectangle that has changed,
with its own colour table, drawn over the previous frame. If a frame has more than 255 colours, all
frames are reduced to 255 common ones first: with a palette per frame, still areas would flicker and
moving ones would leave ghosts. Pillow compresses the pixels.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reward_tuning.errors import TuningError

MAX_FPS = 50  # browsers play a frame of less than 2 hundredths of a second for 10
COLOURS = 255  # of a picture; the 256th marks pixels that do not change
SAMPLED_PIXELS = 2**20  # pixels of a clip that its reduced colours are chosen from
UNCHANGED = b"\x02\x02\x44\x01\x00"  # one pixel of colour 0 of 4, compressed
LOOP = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"  # endless

Video = NDArray[np.uint8]


def gif_bytes(video: Video, fps: float) -> bytes:
    """Encode a clip as an endless GIF with a picture per frame.

    Args:
        video: Frames `(f, H, W, 3)`.
        fps: Frames per second, at most 50; durations are rounded so that the clip keeps its length.

    Raises:
        TuningError: More frames per second than a GIF plays.
    """
    if not 0 < fps <= MAX_FPS:
        raise TuningError(f"a gif plays at most {MAX_FPS} frames per second; got {fps:g}; use mp4")
    height, width = video.shape[1:3]
    if any(len(np.unique(_packed(frame))) > COLOURS for frame in video):
        video = _reduced(video)
    parts = [b"GIF89a", _short(width), _short(height), b"\x00\x00\x00", LOOP]
    for i, frame in enumerate(video):
        start, end = (int(100 * at / fps + 0.5) for at in (i, i + 1))
        parts.append(_picture(frame, None if i == 0 else video[i - 1], end - start))
    return b"".join([*parts, b"\x3b"])


def _picture(frame: NDArray[Any], before: NDArray[Any] | None, hundredths: int) -> bytes:
    """Encode the part of a frame that has changed, with its duration."""
    if before is None:
        changed = np.ones(frame.shape[:2], dtype=bool)
    else:
        changed = (frame != before).any(axis=2)
    if not changed.any():
        return _control(hundredths, clear=0) + _place(0, 0, 1, 1, 1) + bytes(12) + UNCHANGED
    rows, columns = (np.flatnonzero(changed.any(axis=axis)) for axis in (1, 0))
    top, left = int(rows[0]), int(columns[0])
    part = slice(top, int(rows[-1]) + 1), slice(left, int(columns[-1]) + 1)
    table, data = _indexed(frame[part], changed[part])
    height, width = changed[part].shape
    clear = None if changed[part].all() else COLOURS
    return _control(hundredths, clear) + _place(left, top, width, height, 7) + table + data


def _indexed(pixels: NDArray[Any], changed: NDArray[Any]) -> tuple[bytes, bytes]:
    """Return a table of 256 colours and the compressed indices; `COLOURS` for unchanged pixels."""
    places, colours = _colours(pixels[changed])
    index = np.full(changed.shape, COLOURS, dtype=np.uint8)
    index[changed] = places
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(colours)] = colours
    return table.tobytes(), _compressed(index)


def _colours(pixels: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return each pixel's index and the colours, at most `COLOURS`, of `(n, 3)` pixels."""
    found, places = np.unique(_packed(pixels), return_inverse=True)
    colours = np.stack([found >> 16, found >> 8 & 255, found & 255], axis=1)
    return places.reshape(-1).astype(np.uint8), colours.astype(np.uint8)


def _packed(pixels: NDArray[Any]) -> NDArray[np.uint32]:
    """Return each colour of `(..., 3)` as one number: numpy's unique rows take 30 times as long."""
    packed: NDArray[np.uint32] = pixels.astype(np.uint32) @ np.array(
        [1 << 16, 1 << 8, 1], dtype=np.uint32
    )
    return packed


def _reduced(video: Video) -> Video:
    """Reduce a clip to `COLOURS` colours, without dithering.

    Mean error of the README's clips: Pillow's maximum coverage and k-means 0.0055, k-means after
    its median cut 0.0086, its median cut alone 0.011, which also turns small coloured areas grey.
    """
    pixels = video.reshape(-1, 3)
    pixels = np.ascontiguousarray(pixels[:: -(-len(pixels) // SAMPLED_PIXELS)])
    chosen = Image.fromarray(pixels[None]).quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=2)
    none = Image.Dither.NONE
    frames = [Image.fromarray(frame).quantize(palette=chosen, dither=none) for frame in video]
    return np.stack([np.asarray(frame.convert("RGB")) for frame in frames])


def _compressed(index: NDArray[np.uint8]) -> bytes:
    """Return the compressed pixels of the GIF file that Pillow writes of one picture."""
    file = io.BytesIO()
    Image.fromarray(index).save(file, "GIF", optimize=False, interlace=0)
    content = file.getvalue()
    place = 13 + 3 * 2 ** ((content[10] & 7) + 1)  # header and table
    while content[place] == 0x21:  # extensions
        place += 2
        while content[place]:
            place += content[place] + 1
        place += 1
    assert content[place] == 0x2C, content[place]
    assert not content[place + 9], "a local colour table, or interlaced"
    return content[place + 10 : -1]


def _control(hundredths: int, clear: int | None) -> bytes:
    """Encode the duration, and the colour that leaves a pixel unchanged."""
    flags = 0x04 | (clear is not None)  # disposal: leave the picture in place
    return b"\x21\xf9\x04" + bytes([flags]) + _short(hundredths) + bytes([clear or 0, 0])


def _place(left: int, top: int, width: int, height: int, bits: int) -> bytes:
    """Encode the position of a picture that has a table of 2 ** (bits + 1) colours."""
    return b"\x2c" + b"".join(map(_short, (left, top, width, height))) + bytes([0x80 | bits])


def _short(value: int) -> bytes:
    return value.to_bytes(2, "little")
