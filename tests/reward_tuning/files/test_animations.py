"""Animations: each picture is repeated for its duration, and a cut file is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.files.animations import timing
from reward_tuning.files.clips import probe_clip, read_clip, write_clip
from reward_tuning.files.pictures import as_tensor
from reward_tuning.finetune.video_files import read_part
from tests.reward_tuning.files.test_gif_file import ORDERS, blocks, times_by_ffmpeg


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
