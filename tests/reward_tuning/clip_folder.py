"""Clips of every kind of file, as fixtures for `name = clip_folder.name` in a test file."""

import shutil
from pathlib import Path

import imageio.v3 as iio
import pytest
from PIL import Image

from reward_tuning.files.clips import write_clip
from tests.rewards.tiny_clip import frames


@pytest.fixture
def folder(tmp_path: Path, clips: Path) -> Path:
    """A copy of the clips, to change."""
    return Path(shutil.copytree(clips, tmp_path / "clips"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every kind, of two shapes, and one in a folder below."""
    tmp_path = tmp_path_factory.mktemp("clips")
    clip = frames(1, 5, 64, 64)[0]
    write_clip(clip, tmp_path / "a.mp4")
    write_clip(clip.flip(0), tmp_path / "b.gif")
    write_clip(frames(1, 9, 48, 80, seed=2)[0], tmp_path / "deep" / "wide.mp4")
    video = (frames(1, 5, 64, 64, seed=3)[0].permute(0, 2, 3, 1) * 255).byte().numpy()
    iio.imwrite(tmp_path / "d.webm", video, plugin="FFMPEG", codec="libvpx", fps=8, bitrate=10**6)
    Image.fromarray(video[0]).save(tmp_path / "e.jpg", quality=95)
    return tmp_path
