"""mp4 files of judged clips: near what was shown, and the same bytes each time."""

from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from rewards import RewardError
from rewards.core.mp4 import mp4_bytes


def smooth(frames: int, height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    one = np.stack([rows * 255 / height, columns * 255 / width, 128 + 0 * rows], axis=-1)
    return np.stack([np.roll(one, 2 * k, axis=1) for k in range(frames)]).astype(np.uint8)


def test_a_clip_comes_back_nearly_as_it_was(tmp_path: Path) -> None:
    video = smooth(5, 48, 64)
    content = mp4_bytes(video, 12.0)
    (tmp_path / "a.mp4").write_bytes(content)
    read = iio.imread(tmp_path / "a.mp4", plugin="FFMPEG")
    assert read.shape == video.shape
    error = np.sqrt(np.mean((read.astype(float) - video) ** 2))
    assert 20 * np.log10(255 / error) > 38  # PSNR in dB; the chroma of 4:2:0 bounds it
    about = iio.immeta(tmp_path / "a.mp4", plugin="FFMPEG")
    assert (about["fps"], about["codec"], about["pix_fmt"]) == (
        12.0,
        "h264",
        "yuv420p(progressive)",
    )
    assert mp4_bytes(video, 12.0) == content


def test_odd_sides_are_padded(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(mp4_bytes(smooth(1, 17, 31), 8.0))
    read = iio.imread(tmp_path / "a.mp4", plugin="FFMPEG")
    assert read.shape == (1, 18, 32, 3)


def test_a_failure_of_ffmpeg_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        RewardError, match=r"\(1, 2, 2, 3\) cannot be written as mp4 .*ffmpeg ended"
    ):
        mp4_bytes(smooth(1, 2, 2), -1.0)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
    with pytest.raises(RewardError, match="free some space"):
        mp4_bytes(smooth(1, 16, 16), 8.0)
