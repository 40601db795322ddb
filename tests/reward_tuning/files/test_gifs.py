"""Gifs and other animations: every frame there and back, each picture as long as it is shown."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.files import ffmpeg
from reward_tuning.files.animations import timing
from reward_tuning.files.clips import probe_clip, read_clip, write_clip
from reward_tuning.files.pictures import as_tensor
from reward_tuning.finetune.video_files import read_part


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


# --- animations that others wrote


def by_pillow(path: Path, order: list[int], **options: Any) -> Tensor:
    clip = blocks(order)
    pictures = [
        Image.fromarray((frame * 255).byte().permute(1, 2, 0).numpy()).quantize(256)
        for frame in clip
    ]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], loop=0, **options)
    return clip


@pytest.mark.parametrize("order", [ORDERS["repeated"], ORDERS["coming back"]])
def test_pillow_stores_a_repeated_frame_once(tmp_path: Path, order: list[int]) -> None:
    path = tmp_path / "c.gif"
    clip = by_pillow(path, order, duration=125)
    assert len(times_by_ffmpeg(path)) < len(order)
    found = read_clip(path)
    assert found.shape == clip.shape
    assert torch.allclose(found, clip, atol=1 / 255)
    part = read_part(path, "video", 1, 5, 1)  # the same reader where clips are trained on
    assert torch.equal(part, found[1:6])


@pytest.mark.parametrize("ending", [".webp", ".png"])
def test_other_animations_keep_their_durations(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"c{ending}"
    options = {"lossless": True} if ending == ".webp" else {}
    clip = by_pillow(path, [0, 1, 2], duration=[100, 300, 100], **options)
    found = probe_clip(path)
    assert (found.frames, found.fps) == (5, 10.0)
    assert torch.allclose(read_clip(path), clip[[0, 1, 1, 1, 2]], atol=1 / 255)


def test_a_picture_of_the_same_ending_is_a_clip_of_one_frame(tmp_path: Path) -> None:
    for ending in ("png", "webp"):
        path = tmp_path / f"p.{ending}"
        Image.fromarray(np.full((8, 12, 3), 51, np.uint8)).save(path)
        found = probe_clip(path)
        assert (found.frames, found.height, found.width, found.fps) == (1, 8, 12, None)


@pytest.mark.parametrize("name", ["gif.mp4", "png.mov", "webp.gif", "mp4.gif", "mp4.avi"])
def test_a_name_that_belongs_to_another_kind(tmp_path: Path, name: str) -> None:
    """A GIF that is called mp4 is still repeated by its durations, and the other way round."""
    kind, path = name.partition(".")[0], tmp_path / name
    pictures = [Image.new("RGB", (32, 32), (level,) * 3) for level in (0, 0, 0, 100, 200)]
    if kind == "mp4":
        write_clip(
            torch.stack([as_tensor(np.asarray(one)) for one in pictures]), tmp_path / "c.mp4"
        )
        (tmp_path / "c.mp4").rename(path)
    else:
        # Pillow stores the three that are equal as one, of 300 ms
        options = {"format": kind, "save_all": True, "append_images": pictures[1:], "duration": 100}
        pictures[0].save(path, **options | ({"lossless": True} if kind == "webp" else {}))
    found = read_clip(path).mean(dim=(1, 2, 3)) * 255
    assert [round(float(level) / 100) for level in found] == [0, 0, 0, 1, 2]


@pytest.mark.parametrize(
    ("durations", "repeats", "fps"),
    [
        ([125, 125, 125], (1, 1, 1), 8.0),
        ([120, 130, 120, 130], (1, 1, 1, 1), 8.0),  # 8 a second, rounded
        ([120, 250, 130, 500], (1, 2, 1, 4), 8.0),
        ([120, 120, 370], (1, 1, 3), 5000 / 610),
        ([40, 40, 3000], (1, 1, 75), 25.0),
        ([100, 150], (2, 3), 20.0),
        ([20, 30, 20, 30], (1, 1, 1, 1), 40.0),
        ([33, 33, 34], (1, 1, 1), 30.0),
        ([0, 0], (1, 1), 10.0),  # as browsers play it
        ([10, 100], (1, 1), 10.0),
        ([20, 10, 20, 20, 10, 20], (1,) * 6, 60.0),  # 60 a second, rounded by ffmpeg
        ([70, 110, 5000], (2, 3, 143), 1000 * 148 / 5180),
        ([59, 3995, 901, 1570, 704, 3289], (3, 200, 45, 78, 35, 164), 50.0),  # none fits
    ],
)
def test_how_often_a_picture_is_a_frame(
    durations: list[float], repeats: tuple[int, ...], fps: float
) -> None:
    found = timing(durations)
    assert found.repeats == repeats
    assert found.fps == pytest.approx(fps)


def test_a_gif_that_is_cut(tmp_path: Path) -> None:
    write_clip(blocks(list(range(9))), tmp_path / "c.gif")
    content = (tmp_path / "c.gif").read_bytes()
    (tmp_path / "cut.gif").write_bytes(content[: len(content) // 2])
    with pytest.raises(TuningError, match=r"cut\.gif: cut short or damaged, [3-5] pictures in it"):
        read_clip(tmp_path / "cut.gif")
    (tmp_path / "cut.gif").write_bytes(content[:-1])  # the trailer alone
    with pytest.raises(TuningError, match="its end is missing"):
        read_clip(tmp_path / "cut.gif")
