"""Pictures of every mode that Pillow knows, and masks in alpha channels."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from reward_tuning.errors import TuningError
from reward_tuning.files.clips import read_clip, write_clip
from reward_tuning.files.frame_files import binary_mask, read_mask
from reward_tuning.files.pictures import read_alpha, read_picture
from reward_tuning.inputs.condition_files import ConditionFiles
from reward_tuning.inputs.condition_pixels import read_condition_pixels
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.inputs.run_conditions import check_conditions
from reward_tuning.progress import ProgressEvent

CASES = Path(__file__).parents[1] / "cases/clips"
RAMP = np.linspace(0, 255, 48).round().astype(np.uint8)[None].repeat(32, axis=0)
COLOURS = np.stack([RAMP, RAMP[::-1, ::-1], np.full_like(RAMP, 90)], axis=-1)


def grey(levels: NDArray[np.generic], white: float) -> torch.Tensor:
    return torch.from_numpy(levels.astype(np.float64) / white).float().expand(3, *levels.shape)


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled_and_not_cut(tmp_path: Path, ending: str) -> None:
    levels = (np.arange(32 * 48).reshape(32, 48) * 42).astype(np.uint16)
    path = tmp_path / f"p.{ending}"
    cv2.imwrite(str(path), levels)
    if ending == "pgm":
        path = path.rename(tmp_path / "p.png")  # Pillow looks at the content
    found = read_picture(path)
    assert torch.allclose(found, grey(levels, 65535), atol=1e-6)
    assert torch.equal(read_clip(path)[0], found)  # as a clip of one frame
    again = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(again, levels)


MODES: dict[str, tuple[float, float]] = {  # highest level of the file, its white
    "I;16": (65535, 65535),
    "I;16B": (65535, 65535),
    "I;16L": (65535, 65535),
    "I": (65535, 65535),
    "I as bytes": (255, 255),
    "F": (1, 1),
    "F as bytes": (255, 255),
}


@pytest.mark.parametrize("name", MODES)
def test_deep_modes_keep_their_levels(tmp_path: Path, name: str) -> None:
    highest, white = MODES[name]
    mode = name.partition(" ")[0]
    kind = {"F": "<f4", "I": "<i4", "I;16B": ">u2"}.get(mode, "<u2")
    levels = (RAMP / 255 * highest).round(0 if highest > 1 else 6).astype(kind)
    image = Image.frombytes(mode, (48, 32), levels.tobytes())
    image.save(tmp_path / "p.tif")
    with Image.open(tmp_path / "p.tif") as again:
        assert again.mode[0] == mode[0]
    assert torch.allclose(read_picture(tmp_path / "p.tif"), grey(levels, white), atol=1e-5)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_modes_of_eight_bits_keep_their_levels(tmp_path: Path, mode: str, ending: str) -> None:
    of_grey = mode in ("1", "L", "LA")
    source = Image.fromarray(RAMP if of_grey else COLOURS)
    if mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(source, *profiles, outputMode="LAB")
        assert image is not None
    elif mode == "PA":
        image = source.quantize(64).convert("PA")
    elif mode == "P":
        image = source.quantize(64)
    else:
        image = source.convert(mode)
    try:
        image.save(tmp_path / f"p.{ending}")
    except OSError:
        assert ending == "png"  # which has no such mode
        return
    found = read_picture(tmp_path / f"p.{ending}")
    wanted = torch.from_numpy(np.array(source.convert("RGB"))).permute(2, 0, 1) / 255
    if mode == "1":
        wanted = torch.from_numpy(np.array(image, dtype=np.float32)).expand(3, -1, -1)
    # CIELAB of 8 bits has no pure primaries: the largest error is 0.13, at the ramp's dark end.
    near = {"P": 0.06, "PA": 0.06, "LAB": 0.15, "YCbCr": 0.02}.get(mode, 1e-6)
    assert float((found - wanted).abs().max()) <= near
    assert float((found - wanted).abs().mean()) <= near / 3 + 1e-7


def tiff(path: Path, samples: NDArray[np.uint16], tags: dict[int, int]) -> None:
    """Write the simplest TIFF, uncompressed and little-endian, of 16 bits a sample.

    Args:
        path: Where.
        samples: `(planes, h, w)`, a plane for each colour.
        tags: Further ones.
    """
    planes, height, width = samples.shape
    data, size = samples.astype("<u2").tobytes(), height * width * 2
    behind = 8 + len(data)  # where lists of numbers lie
    bits, places = struct.pack("<3H", 16, 16, 16), [8 + i * size for i in range(planes)]
    many = planes > 1
    about = {
        256: (4, 1, width),
        257: (4, 1, height),
        258: (3, planes, behind if many else 16),
        259: (3, 1, 1),
        273: (4, planes, behind + 8 if many else 8),
        277: (3, 1, planes),
        278: (4, 1, height),
        279: (4, planes, behind + 20 if many else size),
    }
    about |= {tag: (3, 1, value) for tag, value in tags.items()}
    lists = bits + bytes(2) + struct.pack(f"<{2 * planes}I", *places, *[size] * planes)
    entries = b"".join(struct.pack("<HHII", tag, *about[tag]) for tag in sorted(about))
    directory = struct.pack("<H", len(about)) + entries + bytes(4)
    start = struct.pack("<2sHI", b"II", 42, behind + len(lists))
    path.write_bytes(start + data + lists + directory)


def test_deep_levels_of_a_tiff_that_counts_from_white(tmp_path: Path) -> None:
    """Pillow turns those of up to 8 bits and leaves those of 16."""
    samples = (RAMP.astype(np.uint16) * 257)[None]
    for photometric, wanted in ((1, RAMP), (0, 255 - RAMP)):
        tiff(tmp_path / "p.tif", samples, {262: photometric})
        assert torch.allclose(read_picture(tmp_path / "p.tif"), grey(wanted, 255), atol=1e-6)


def test_deep_planes_of_a_tiff_are_refused(tmp_path: Path) -> None:
    """Pillow 13 takes their bytes for levels of 8 bits, and says nothing."""
    tiff(tmp_path / "p.tif", COLOURS.transpose(2, 0, 1).astype(np.uint16) * 257, {262: 2, 284: 2})
    with Image.open(tmp_path / "p.tif") as image:
        assert (image.mode, image.size) == ("RGB", (48, 32))
    with pytest.raises(TuningError, match="its colours are planes of more than 8 bits"):
        read_picture(tmp_path / "p.tif")


@pytest.mark.parametrize(
    ("levels", "told"),
    [
        (np.array([[0.0, 1.5]], np.float32), "run from 0 to 1.5"),
        (np.array([[-1.0, 1.0]], np.float32), "run from -1 to 1"),
        (np.array([[0.0, 300.0]], np.float32), "run from 0 to 300"),
        (np.array([[0.0, np.nan]], np.float32), "run from nan to nan"),
        (np.array([[0, 70000]], np.int32), "run from 0 to 70000"),
        (np.array([[-5, 10]], np.int32), "run from -5 to 10"),
    ],
)
def test_levels_of_no_scale_are_refused(
    tmp_path: Path, levels: NDArray[np.generic], told: str
) -> None:
    Image.fromarray(levels).save(tmp_path / "p.tif")
    with pytest.raises(TuningError, match=told):
        read_picture(tmp_path / "p.tif")


def test_pages_and_animations_are_no_picture(tmp_path: Path) -> None:
    pages = [Image.new("L", (8, 8), level) for level in (0, 99)]
    for name, kind in (("p.tif", "pages"), ("p.png", "frames"), ("p.webp", "frames")):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
        with pytest.raises(TuningError, match=f"it has 2 {kind}; expected one"):
            read_picture(tmp_path / name)


def test_a_cut_picture_is_told(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).resize((480, 320)).save(tmp_path / "p.jpg", quality=95)
    content = (tmp_path / "p.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(TuningError, match=r"cut\.jpg: not a picture that can be read .*truncated"):
        read_picture(tmp_path / "cut.jpg")


# --- masks


def test_a_mask_in_the_alpha_channel_is_the_mask_and_it_is_said() -> None:
    said: list[str] = []
    path = CASES / "mask-in-alpha.png"
    found = binary_mask(read_mask(path, 9, (64, 96), "v.mp4", said.append))
    assert found.shape == (1, 1, 64, 96)
    assert float(found[..., :48].max()) == 0.0
    assert float(found[..., 48:].min()) == 1.0
    (one,) = said
    assert "mask-in-alpha.png: its colour is 0 0 0 everywhere, so its alpha channel is" in one


def with_alpha(mode: str) -> Image.Image:
    """The right half opaque, of one colour."""
    alpha = np.zeros((32, 48), np.uint8)
    alpha[:, 24:] = 255
    if mode == "P":
        image = Image.fromarray(alpha // 255)
        image.putpalette([7, 7, 7, 7, 7, 7])
        image.info["transparency"] = 0
        return image
    flat = Image.new(mode[:-1], (48, 32), 200 if mode == "LA" else (200, 10, 10))
    flat.putalpha(Image.fromarray(alpha))
    return flat


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_every_kind_of_alpha_can_be_a_mask(tmp_path: Path, mode: str) -> None:
    image = with_alpha(mode)
    assert image.mode == mode
    image.save(tmp_path / "m.png", **({"transparency": 0} if mode == "P" else {}))
    said: list[str] = []
    found = binary_mask(read_mask(tmp_path / "m.png", 9, (32, 48), "v.mp4", said.append))
    assert found[0, 0, 0].tolist() == [0.0] * 24 + [1.0] * 24
    assert "alpha channel is the mask" in said[0]


def test_colours_that_differ_are_the_mask(tmp_path: Path) -> None:
    image = Image.fromarray(np.where(RAMP < 128, 0, 255).astype(np.uint8)).convert("RGBA")
    image.save(tmp_path / "opaque.png")
    image.putalpha(Image.fromarray(RAMP.T[:32, :32].copy()).resize((48, 32)))
    image.save(tmp_path / "both.png")
    for name, told in (("opaque.png", []), ("both.png", ["its colours are the mask"])):
        said: list[str] = []
        found = binary_mask(read_mask(tmp_path / name, 9, (32, 48), "v.mp4", said.append))
        assert torch.equal(found[0, 0], torch.from_numpy((RAMP >= 128).astype(np.float32)))
        assert len(said) == len(told)
        assert all(part in one for part, one in zip(told, said, strict=True))
    assert read_alpha(tmp_path / "opaque.png") is not None


def test_a_mask_without_white_is_said(tmp_path: Path) -> None:
    Image.new("L", (48, 32), 1).save(tmp_path / "m.png")  # 0 and 1 in place of 0 and 255
    said: list[str] = []
    read_mask(tmp_path / "m.png", 9, (32, 48), "v.mp4", said.append)
    assert (
        "its brightest level is 1 of 255 and white begins at 240, so nothing is regenerated"
        in said[0]
    )


def test_it_is_said_where_a_condition_is_read_and_where_a_run_checks_it(tmp_path: Path) -> None:
    write_clip(torch.rand(9, 3, 64, 96), tmp_path / "v.mp4")
    mask = str(CASES / "mask-in-alpha.png")
    files = ConditionFiles(video=str(tmp_path / "v.mp4"), mask=mask)
    (note,) = read_condition_pixels(files, (9, 64, 96)).notes
    events: list[ProgressEvent] = []
    check_conditions(
        [Prompt("a", "a", files)], (9, 64, 96), strength=1.0, kind=None, progress=events.append
    )
    assert [event.note for event in events if event.note] == [note]
    assert "alpha channel is the mask" in note
