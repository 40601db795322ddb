"""Read pictures of every mode that Pillow knows, scaled by the white level of the mode.

Pillow's `convert("RGB")` clips the levels of 16-bit, 32-bit and floating-point pictures at 255
instead of scaling them, which turns a 16-bit depth map white.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.files.file_names import file_name_fault

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
UNREADABLE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""Exceptions of Pillow on damaged, foreign and far too large files, as found by
`benchmarks/fuzz_readers.py pictures`."""

BYTE, WORD = 255.0, 65535.0  # largest levels of 8 and 16 bits
STRAIGHT = {"La": "LA", "RGBa": "RGBA"}  # mode with premultiplied alpha -> without
WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
BITS, PHOTOMETRIC, PLANES = 258, 262, 284  # TIFF tags
WHITE_IS_ZERO, SEPARATE = 0, 2  # values of PHOTOMETRIC and PLANES
INVERTED = "white is zero"
MULTI_FRAME = ("GIF", "WEBP", "PNG", "TIFF")  # formats whose further pictures are frames or pages


def read_picture(path: str | Path) -> Tensor:
    """Read a picture in the orientation that its EXIF data give; transparency is dropped.

    Levels are divided by the white level of the file's mode: 255, or 65535 for 16 bits. For 32-bit
    integers it is 65535, or 255 if no level is higher; for floating point 1, or 255 if a level is
    above 2.

    Returns:
        Picture `(3, H, W)` float32 in [0, 1].

    Raises:
        TuningError: The file is missing, is not a picture, is an animation or has several pages, or
            has levels outside the range of its mode.
    """
    with open_picture(path) as image:
        return as_tensor(levels(image))


def read_alpha(path: str | Path) -> Tensor | None:
    """Read a picture's alpha channel, `(H, W)` float32 in [0, 1]; None if it has none.

    Raises:
        TuningError: As `read_picture`.
    """
    with open_picture(path) as image:
        if image.mode not in WITH_ALPHA and "transparency" not in image.info:
            return None
        return torch.from_numpy(np.array(image.convert("RGBA").getchannel("A"))).float() / BYTE


@contextmanager
def open_picture(path: str | Path) -> Iterator[Image.Image]:
    """Open a picture with Pillow, decoded, oriented and without premultiplied alpha.

    Raises:
        TuningError: As `read_picture`; also for errors of Pillow in the body.
    """
    path = Path(path)
    if fault := file_name_fault(str(path)):
        raise TuningError(f"picture {str(path)[:60]!a}: {fault}")
    if not path.is_file():
        raise TuningError(f"picture {path}: no such file")
    try:
        with Image.open(path) as file:
            count = getattr(file, "n_frames", 1) if file.format in MULTI_FRAME else 1
            if count > 1:
                kind = "pages" if file.format == "TIFF" else "frames"
                raise TuningError(
                    f"picture {path}: it has {count} {kind}; expected one; save the one you "
                    "want as its own file"
                )
            if file.format == "TIFF":
                _check_tiff(file)
            image = ImageOps.exif_transpose(file)
            image.format = file.format  # a copy has none
            yield image.convert(STRAIGHT[image.mode]) if image.mode in STRAIGHT else image
    except TuningError:
        raise
    except UNREADABLE as error:
        raise TuningError(
            f"picture {path}: not a picture that can be read ({error}); give a "
            f"{', '.join(PICTURE_SUFFIXES)} file"
        ) from error


def _check_tiff(file: Image.Image) -> None:
    """Note inverted levels, which Pillow does not convert, and refuse what it misreads.

    Raises:
        ValueError: Planes of more than 8 bits, which Pillow reads as 8 bits.
    """
    tags = file.tag_v2  # type: ignore[attr-defined]  # an attribute of Pillow's TIFF files alone
    if tags.get(PLANES) == SEPARATE and max(tags.get(BITS, (1,))) > 8:
        raise ValueError("its colours are planes of more than 8 bits; save it with 8 bits")
    file.info[INVERTED] = tags.get(PHOTOMETRIC) == WHITE_IS_ZERO


def levels(image: Image.Image) -> NDArray[np.float32]:
    """Return the levels of a picture of any mode, `(H, W, 3)` in [0, 1]; see `read_picture`.

    Raises:
        ValueError: Levels outside the range of the mode.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        grey = _deep(image)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "LAB":
        image = _from_lab(image)
    return np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(BYTE)


def as_tensor(frame: NDArray[Any]) -> Tensor:
    """Convert `(H, W, 3)` uint8, or floats in [0, 1], to `(3, H, W)` float32 in [0, 1]."""
    found = torch.from_numpy(np.array(frame)).permute(2, 0, 1).float()
    return found / BYTE if frame.dtype == np.uint8 else found


def _deep(image: Image.Image) -> NDArray[np.float32]:
    """Return the levels `(H, W)` of a grey picture of more than 8 bits."""
    # I;16B and I;16N have their own byte order, which Pillow passes to numpy with the mode.
    grey = np.asarray(image).astype(np.float64)
    low, high = float(grey.min()), float(grey.max())
    white = WORD
    if image.mode == "F":
        white = BYTE if high > 2 else 1.0
    elif image.mode == "I" and image.format != "PPM" and high <= BYTE:
        white = BYTE  # an array saved without scaling; Pillow scales those of PPM to 65535
    if not 0 <= low <= high <= white:  # NaN included
        allowed = "0 to 1, or 0 to 255" if image.mode == "F" else "0 to 255, or 0 to 65535"
        raise ValueError(
            f"its levels run from {low:g} to {high:g}; allowed in mode {image.mode}: {allowed}; "
            "save it with 8 bits"
        )
    if image.info.get(INVERTED):  # Pillow inverts such levels only up to 8 bits
        grey = white - grey
    return (grey / white).astype(np.float32)


def _from_lab(image: Image.Image) -> Image.Image:
    """Convert CIELAB to RGB, which Pillow does only by way of colour profiles."""
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None  # None only with inPlace
    return converted
