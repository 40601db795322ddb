"""Gifs and other animations: every frame there and back, each picture as long as it is shown."""

from __future__ import annotations

import subprocess
from pathlib import Path

import cv2
import imageio_ffmpeg
import pytest
import torch
from PIL import Image
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.files import ffmpeg
from reward_tuning.files.clips import probe_clip, read_clip, write_clip


def blocks(order: list[int], side: int = 32) -> Tensor:
    """A clip of few colours whose frame shows block number `order[i]`, `(f, 3, side, side)`."""
    draw = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 4, (max(order) + 1, 3, 8, 8), generator=draw) / 4
    large = pictures.repeat_interleave(side // 8, 2).repeat_interleave(side // 8, 3)
    return (large[order] * 255).round() / 255


def times_by_ffmpeg(path: Path) -> list[float]:
    """When each stored picture is shown, in seconds, as another program reads it."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path)]
    command += [*ffmpeg.passthrough_options(), "-c:v", "wrapped_avframe", "-f", "framecrc", "-"]
    lines = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
    base = next(line.split()[-1] for line in lines if line.startswith("#tb"))
    over, under = map(int, base.split("/"))
    return [int(line.split(",")[2]) * over / under for line in lines if line[0] != "#"]


ORDERS: dict[str, list[int]] = {
    "repeated": [0, 0, 0, 1, 1, 2, 2, 2, 2],
    "a still": [0] * 9,
    "coming back": [0, 1, 0, 0, 1, 1, 0],
    "all different": list(range(9)),
    "one frame": [0],
    "24 alike": [0, *([1] * 24), 2],
}


@pytest.mark.parametrize("order", list(ORDERS.values()), ids=list(ORDERS))
@pytest.mark.parametrize("fps", [8, 10, 24, 50])
def test_a_gif_comes_back_exactly(tmp_path: Path, order: list[int], fps: int) -> None:
    clip, path = blocks(order), tmp_path / "c.gif"
    write_clip(clip, path, fps=fps)
    assert torch.equal(read_clip(path), clip)
    assert probe_clip(path).frames == len(order)


@pytest.mark.parametrize("fps", [8, 24, 30])
def test_other_programs_see_every_frame_at_its_time(tmp_path: Path, fps: int) -> None:
    clip, path = blocks(ORDERS["repeated"]), tmp_path / "c.gif"
    write_clip(clip, path, fps=fps)
    times = times_by_ffmpeg(path)
    assert times == pytest.approx([i / fps for i in range(9)], abs=0.0051)
    opened, found = cv2.VideoCapture(str(path)), []
    while (read := opened.read())[0]:
        found.append(torch.from_numpy(read[1][..., ::-1].copy()).permute(2, 0, 1) / 255)
    assert torch.allclose(torch.stack(found), clip, atol=1e-6)
    with Image.open(path) as image:
        assert image.n_frames == 9  # type: ignore[attr-defined]
        assert image.info["loop"] == 0


def test_a_still_part_does_not_change_between_frames(tmp_path: Path) -> None:
    """With more than 256 colours, a palette a frame would make what rests flicker."""
    draw = torch.Generator().manual_seed(1)
    clip = torch.rand(1, 3, 48, 48, generator=draw).repeat(6, 1, 1, 1)
    for i in range(6):
        clip[i, :, 8:16, 4 * i : 4 * i + 8] = i / 6
    write_clip(clip, tmp_path / "c.gif")
    found = read_clip(tmp_path / "c.gif")
    assert found.shape == clip.shape
    assert float(found[1:, :, 16:].sub(found[:1, :, 16:]).abs().max()) == 0.0
    assert float((found - clip).abs().mean()) < 0.05


def test_what_is_small_keeps_its_colour_and_leaves_no_ghost(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(2)
    clip = 0.4 + 0.2 * torch.rand(1, 1, 96, 96, generator=draw).expand(1, 3, 96, 96)
    clip = (clip + 0.02 * torch.rand(1, 3, 96, 96, generator=draw)).repeat(4, 1, 1, 1)
    yellow = torch.tensor([0.9, 0.85, 0.1])[:, None, None]
    for i in range(4):
        clip[i, :, 40:46, 20 + 2 * i : 26 + 2 * i] = yellow
    assert len(clip[0].flatten(1).mul(255).byte().T.unique(dim=0)) > 255
    write_clip(clip, tmp_path / "c.gif")
    found = read_clip(tmp_path / "c.gif")
    for i in range(4):
        square = found[i, :, 40:46, 20 + 2 * i : 26 + 2 * i].flatten(1)
        assert float((square - square[:, :1]).abs().max()) == 0.0
        assert float((square - yellow[:, :, 0]).abs().max()) < 0.05
    assert float((found - clip).abs().mean()) < 0.02


def test_fifty_frames_a_second_are_the_most(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="a gif plays at most 50 frames per second; got 60"):
        write_clip(blocks([0]), tmp_path / "c.gif", fps=60)
