"""Pictures, clips and masks from files, at the size asked for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.files.clips import read_clip, write_clip
from reward_tuning.files.frame_files import (
    binary_mask,
    fitted,
    read_frames,
    read_mask,
    read_picture,
)


def picture(height: int, width: int) -> Image.Image:
    """Smooth colours, so that no filter's edges matter."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 7 + y / 11), np.cos(x / 13), np.sin(y / 9)]
    return Image.fromarray(np.uint8(127.5 + 120 * np.stack(waves, axis=-1)))


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("size", [(60, 90), (90, 60), (33, 200), (31, 47), (64, 64)])
def test_scaled_and_cut_like_pillows_fit(tmp_path: Path, size: tuple[int, int]) -> None:
    image = picture(*size)
    image.save(tmp_path / "p.png")
    found = fitted(read_picture(tmp_path / "p.png")[None], 32, 48)[0]
    wanted = tensor(ImageOps.fit(image, (48, 32), Image.Resampling.BICUBIC))
    assert found.shape == wanted.shape
    # Pillow cuts at fractions of a pixel: its picture may be half a pixel beside ours.
    assert float((found - wanted).abs().mean()) < 0.03
    assert float((found.flip(-1) - wanted).abs().mean()) > 0.1


def test_a_picture_that_fits_is_left_alone(tmp_path: Path) -> None:
    image = picture(32, 48)
    image.save(tmp_path / "p.png")
    assert torch.equal(fitted(read_picture(tmp_path / "p.png")[None], 32, 48)[0], tensor(image))


def test_a_photo_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    image = picture(32, 48)
    about = Image.Exif()
    about[0x0112] = 6  # to be turned by 90 degrees
    image.save(tmp_path / "p.png", exif=about)
    assert read_picture(tmp_path / "p.png").shape == (3, 48, 32)


def clip(frames: int, height: int = 32, width: int = 48) -> Tensor:
    levels = torch.linspace(0, 1, frames)[:, None, None, None]
    return levels.expand(frames, 3, height, width)


def test_the_first_frames_of_a_clip(tmp_path: Path) -> None:
    path = tmp_path / "c.mp4"
    write_clip(clip(9), path)
    found = read_frames(path, 5, "video")
    assert torch.equal(found, read_clip(path)[:5])
    assert found.mean(dim=(1, 2, 3)).tolist() == pytest.approx(
        [0, 1 / 8, 2 / 8, 3 / 8, 4 / 8], abs=0.02
    )
    with pytest.raises(
        TuningError, match=r"control video .*c\.mp4: 9 frames are fewer .* 13; .* 9"
    ):
        read_frames(path, 13, "control video")


def test_a_mask_is_white_where_it_generates(tmp_path: Path) -> None:
    levels = np.zeros((32, 48), dtype=np.uint8)
    levels[:, 10:] = 239
    levels[:, 20:] = 240
    Image.fromarray(levels).save(tmp_path / "m.png")
    found = binary_mask(read_mask(tmp_path / "m.png", 9, (32, 48), "v.mp4"))
    assert found.shape == (1, 1, 32, 48)
    assert found[0, 0, 0].tolist() == [0.0] * 20 + [1.0] * 28

    moving = torch.zeros(9, 3, 32, 48)
    for i in range(9):
        moving[i, :, :, 4 * i : 4 * i + 16] = 1
    write_clip(moving, tmp_path / "m.mp4")
    found = binary_mask(read_mask(tmp_path / "m.mp4", 5, (32, 48), "v.mp4"))
    assert found.shape == (5, 1, 32, 48)
    wrong = (found[:, 0] != moving[:5, 0]).float().mean()
    assert float(wrong) < 0.05  # the video's compression blurs edges


def test_a_mask_of_another_size_is_told(tmp_path: Path) -> None:
    picture(30, 48).save(tmp_path / "m.png")
    with pytest.raises(TuningError, match=r"m\.png: 30 x 48 .* its video v\.mp4 32 x 48; a mask"):
        read_mask(tmp_path / "m.png", 9, (32, 48), "v.mp4")


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match=r"picture .*gone\.png: no such file"):
        read_picture(tmp_path / "gone.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    with pytest.raises(TuningError, match=r"bad\.png: not a picture that can be read"):
        read_picture(tmp_path / "bad.png")
    write_clip(clip(9), tmp_path / "whole.mp4")
    (tmp_path / "bad.mp4").write_bytes((tmp_path / "whole.mp4").read_bytes()[:300])
    with pytest.raises(TuningError, match=r"bad\.mp4: not a video that can be read"):
        read_frames(tmp_path / "bad.mp4", 5, "video")
