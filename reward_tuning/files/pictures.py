"""Pictures from files: every kind that Pillow reads, at its own levels.

Pillow's `convert("RGB")` cuts the levels of 16-bit, 32-bit and floating-point pictures off at 255
instead of scaling them, so that a 16-bit depth map becomes white.
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

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
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
"""What Pillow raises on files that are damaged, something else, or far too large: found by
`benchmarks/fuzz_readers.py pictures`."""

BYTE, WORD = 255.0, 65535.0
STRAIGHT = {"La": "LA", "RGBa": "RGBA"}  # premultiplied -> not
WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
BITS, PHOTOMETRIC, PLANES = 258, 262, 284  # TIFF tags
WHITE_IS_ZERO, SEPARATE = 0, 2  # of the second and the third
INVERTED = "white is zero"
SEVERAL = ("GIF", "WEBP", "PNG", "TIFF")  # formats whose further pictures are frames or pages


def read_picture(path: str | Path) -> Tensor:
    """Read a picture, turned as its camera says; transparency is dropped.

    Levels are shares of the white of the file's mode: 255, or 65535 for 16 bits. A 32-bit whole
    number counts to 65535, or to 255 where no level of the picture is higher; a floating-point
    level to 1, or to 255 where one is above 2.

    Returns:
        `(3, H, W)` float32 in [0, 1].

    Raises:
        TuningError: The file is missing, is no picture, is an animation or has several pages, or
            has levels outside of these.
    """
    with opened(path) as image:
        return as_tensor(levels(image))


def read_alpha(path: str | Path) -> Tensor | None:
    """Read how opaque a picture is, `(H, W)` float32 in [0, 1]; None where it does not say.

    Raises:
        TuningError: As `read_picture`.
    """
    with opened(path) as image:
        if image.mode not in WITH_ALPHA and "transparency" not in image.info:
            return None
        return torch.from_numpy(np.array(image.convert("RGBA").getchannel("A"))).float() / BYTE


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """A picture as Pillow has it, whole and turned, not premultiplied.

    Raises:
        TuningError: As `read_picture`; also for what the body finds wrong with it.
    """
    path = Path(path)
    if fault := file_name_fault(str(path)):
        raise TuningError(f"picture {str(path)[:60]!a}: {fault}")
    if not path.is_file():
        raise TuningError(f"picture {path}: no such file")
    try:
        with Image.open(path) as file:
            count = getattr(file, "n_frames", 1) if file.format in SEVERAL else 1
            if count > 1:
                kind = "pages" if file.format == "TIFF" else "frames"
                raise TuningError(
                    f"picture {path}: it has {count} {kind}, but a picture has one; save the one "
                    "you want as its own file"
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
            f"{', '.join(PICTURES)} file"
        ) from error


def _check_tiff(file: Image.Image) -> None:
    """Mark what Pillow leaves as it is, and refuse what it reads wrongly in silence.

    Raises:
        ValueError: Planes of more than 8 bits, which Pillow takes for 8.
    """
    tags = file.tag_v2  # type: ignore[attr-defined]  # of Pillow's TIFF files
    if tags.get(PLANES) == SEPARATE and max(tags.get(BITS, (1,))) > 8:
        raise ValueError("its colours are planes of more than 8 bits; save it with 8 bits")
    file.info[INVERTED] = tags.get(PHOTOMETRIC) == WHITE_IS_ZERO


def levels(image: Image.Image) -> NDArray[np.float32]:
    """The levels of a picture of any mode, `(H, W, 3)` in [0, 1]; see `read_picture`.

    Raises:
        ValueError: Levels outside of what its mode holds.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        grey = _deep(image)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "LAB":
        image = _from_lab(image)
    return np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(BYTE)


def as_tensor(frame: NDArray[Any]) -> Tensor:
    """`(H, W, 3)` in [0, 1], or uint8, to `(3, H, W)` float32 in [0, 1]."""
    found = torch.from_numpy(np.array(frame)).permute(2, 0, 1).float()
    return found / BYTE if frame.dtype == np.uint8 else found


def _deep(image: Image.Image) -> NDArray[np.float32]:
    """`(H, W)` of a grey picture of more than 8 bits."""
    # The buffer of I;16B and I;16N has its own byte order, which numpy is told by the mode.
    grey = np.asarray(image).astype(np.float64)
    low, high = float(grey.min()), float(grey.max())
    white = WORD
    if image.mode == "F":
        white = BYTE if high > 2 else 1.0
    elif image.mode == "I" and image.format != "PPM" and high <= BYTE:
        white = BYTE  # numpy's whole numbers saved as they are; PPM's are scaled to 65535
    if not 0 <= low <= high <= white:  # NaN included
        wanted = "0 to 1, or 0 to 255" if image.mode == "F" else "0 to 255, or 0 to 65535"
        raise ValueError(
            f"its levels run from {low:g} to {high:g}, and those of the mode {image.mode} are "
            f"{wanted}; save it with 8 bits"
        )
    if image.info.get(INVERTED):  # Pillow turns such levels up to 8 bits alone
        grey = white - grey
    return (grey / white).astype(np.float32)


def _from_lab(image: Image.Image) -> Image.Image:
    """Pillow converts CIELAB by a colour profile alone."""
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None  # only inPlace gives none
    return converted
