"""Clips to files and back."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.files.clips import read_clip, side_by_side, write_clip
from tests.reward_tuning.full_disk import largest_file


def moving_disc(height: int = 64, width: int = 64) -> Tensor:
    """A soft disc that moves to the right over a grey slope, (9, 3, H, W)."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    frames = []
    for i in range(9):
        disc = torch.sigmoid(10 - ((y - height / 2) ** 2 + (x - 15 - 4 * i) ** 2).sqrt())
        slope = 0.2 + 0.4 * y / height
        frames.append(torch.stack([slope + (1 - slope) * disc, slope, slope * (1 - disc)]))
    return torch.stack(frames)


@pytest.mark.parametrize(("ending", "mean", "most"), [(".mp4", 1.5, 30), (".gif", 4.0, 60)])
def test_comes_back(tmp_path: Path, ending: str, mean: float, most: float) -> None:
    clip = moving_disc()
    path = tmp_path / f"clip{ending}"
    write_clip(clip, path)
    again = read_clip(path)
    assert again.shape == clip.shape
    assert again.dtype == torch.float32
    difference = (again - clip).abs() * 255
    assert difference.mean() < mean
    assert difference.max() < most
    # the frames are in order: each is nearest to its own
    distance = (again[:, None] - clip[None]).abs().mean(dim=(2, 3, 4))
    assert distance.argmin(dim=1).tolist() == list(range(9))


def test_colours_keep_their_places(tmp_path: Path) -> None:
    clip = torch.zeros(5, 3, 32, 48)
    clip[:, 0, :16, :24] = 1.0  # red in the upper left corner, nowhere else
    write_clip(clip, tmp_path / "c.mp4")
    found = read_clip(tmp_path / "c.mp4")[2]
    assert found[0, 4:12, 4:20].mean() > 0.95
    assert found[1:, 4:12, 4:20].mean() < 0.05
    assert found[:, 20:28].mean() < 0.02
    assert found[:, :, 28:].mean() < 0.02


@pytest.mark.parametrize("ending", [".mp4", ".gif", ".png"])
def test_same_frames_same_bytes(tmp_path: Path, ending: str) -> None:
    for name in ("a", "b"):
        write_clip(moving_disc(), tmp_path / f"{name}{ending}")
    assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


def test_png_is_the_frames_in_a_row(tmp_path: Path) -> None:
    clip = moving_disc()
    write_clip(clip, tmp_path / "c.png")
    found = torch.tensor(list(Image.open(tmp_path / "c.png").getdata()), dtype=torch.uint8)
    wanted = (clip * 255).round().to(torch.uint8).permute(2, 0, 3, 1).reshape(-1, 3)
    assert torch.equal(found, wanted)


def test_gif_plays_at_its_rate_without_end(tmp_path: Path) -> None:
    write_clip(moving_disc(), tmp_path / "c.gif", fps=10)
    with Image.open(tmp_path / "c.gif") as image:
        assert image.info["duration"] == 100
        assert image.info["loop"] == 0


def test_enlarged(tmp_path: Path) -> None:
    clip = torch.rand(1, 3, 2, 3, generator=torch.Generator().manual_seed(0))
    write_clip(clip, tmp_path / "c.png", enlarge=4)
    with Image.open(tmp_path / "c.png") as image:
        assert image.size == (12, 8)
        red, green, blue = (clip[0, :, 1, 2] * 255).round().int().tolist()
        assert image.getpixel((8, 4)) == image.getpixel((11, 7)) == (red, green, blue)


def test_values_outside_are_cut(tmp_path: Path) -> None:
    clip = torch.tensor([-0.5, 1.5]).view(1, 1, 1, 2).expand(1, 3, 2, 2)
    write_clip(clip, tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as image:
        assert image.getpixel((0, 0)) == (0, 0, 0)
        assert image.getpixel((1, 0)) == (255, 255, 255)


def test_side_by_side() -> None:
    before, after = torch.zeros(5, 3, 16, 24), torch.full((5, 3, 16, 24), 0.5)
    both = side_by_side(before, after, gap=4)
    assert both.shape == (5, 3, 16, 52)
    assert torch.equal(both[..., :24], before)
    assert bool((both[..., 24:28] == 1).all())
    assert torch.equal(both[..., 28:], after)


def test_side_by_side_needs_one_shape() -> None:
    with pytest.raises(TuningError, match="the same number of frames and the same size"):
        side_by_side(torch.zeros(5, 3, 16, 16), torch.zeros(9, 3, 16, 16))


@pytest.mark.parametrize("name", ["c.avi", "c", "c.MP4x"])
def test_other_endings(tmp_path: Path, name: str) -> None:
    with pytest.raises(TuningError, match=r"allowed: \.mp4, \.gif, \.png"):
        write_clip(moving_disc(), tmp_path / name)


def test_wrong_shape(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match=r"expected \(frames, 3, H, W\)"):
        write_clip(moving_disc()[None], tmp_path / "c.mp4")


def test_reading_what_is_no_video(tmp_path: Path) -> None:
    write_clip(moving_disc(), tmp_path / "c.mp4")
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "c.mp4").read_bytes()[:300])
    (tmp_path / "no.gif").write_text("no picture")
    for name in ("cut.mp4", "no.gif"):
        with pytest.raises(TuningError, match="not a video that can be read"):
            read_clip(tmp_path / name)
    with pytest.raises(TuningError, match="no such file"):
        read_clip(tmp_path / "gone.mp4")


@pytest.mark.parametrize("ending", [".mp4", ".gif", ".png"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, ending: str) -> None:
    """At the first byte, and where half of the file is written."""
    path = tmp_path / f"c{ending}"
    write_clip(moving_disc(), path)
    before = path.read_bytes()
    other = torch.rand(9, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for size in (0, 5000):
        with (
            largest_file(size),
            pytest.raises(TuningError, match=r"cannot be written \(.*free some space or choose"),
        ):
            write_clip(other, path)
        assert path.read_bytes() == before
        assert [one.name for one in tmp_path.iterdir()] == [path.name]
    write_clip(other, path)
    assert path.stat().st_size > 5000
