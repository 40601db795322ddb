"""Sources of replayed clips: files read, checked and refused line by line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import imageio.v3 as iio
import pytest
import torch

from reward_tuning.errors import TuningError
from reward_tuning.files.clips import read_clip, write_clip
from reward_tuning.tuning.replay_sources import check_sources, read_sources
from reward_tuning.tuning.trainer import run
from tests.reward_tuning.tiny_run import tiny_recipe, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARD_TUNING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield write_world(tmp_path_factory.mktemp("world"))


def write_clips(folder: Path, count: int = 2) -> Path:
    """A file of clips, 5 frames of 32 x 32."""
    rows = []
    for i in range(count):
        frames = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(i))
        write_clip(frames, folder / f"{i}.gif")
        rows.append({"prompt": f"a new prompt {i}", "video": f"{i}.gif", "source": "ours"})
    path = folder / "clips.jsonl"
    path.write_text("\n\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", [".mp4", ".webm"])
def test_videos_are_read(tmp_path: Path, ending: str) -> None:
    codec = {".mp4": "libx264", ".webm": "libvpx-vp9"}[ending]
    tones = torch.linspace(40, 200, 5).byte()[:, None, None, None].expand(5, 32, 32, 3)
    iio.imwrite(tmp_path / f"a{ending}", tones.numpy(), plugin="FFMPEG", codec=codec, fps=8)
    clip = read_clip(tmp_path / f"a{ending}")
    assert clip.shape == (5, 3, 32, 32)
    assert torch.allclose(clip.mean(dim=(1, 2, 3)), torch.linspace(40, 200, 5) / 255, atol=0.03)


def test_bad_lines_are_told_with_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "clips.jsonl"
    path.write_text(
        '{"prompt": "a", "video": "a.mp4"}\n\n{"prompt": "a"}\n[1]\n{"prompt": " ", "video": 3}\n{'
    )
    with pytest.raises(TuningError) as caught:
        read_sources(path)
    told = str(caught.value).splitlines()
    assert told[0] == f"train.replay.source {path}:"
    assert told[1:] == [
        "  line 3: the key `video` (or `file`, `file_path`) is missing",
        '  line 4: got [1]; expected an object such as {"prompt": "...", "video": "clip.mp4"}',
        '  line 5: prompt is " "; expected a text',
        "  line 6: not valid JSON: Expecting property name enclosed in double quotes at column 2",
    ]
    path.write_text("\n")
    with pytest.raises(TuningError, match="has no clip"):
        read_sources(path)


def test_clips_that_do_not_fit_are_told_before_anything_is_loaded(
    world: Path, tmp_path: Path
) -> None:
    path = write_clips(tmp_path, 4)
    write_clip(torch.rand(9, 3, 32, 32), tmp_path / "1.gif")
    write_clip(torch.rand(5, 3, 32, 48), tmp_path / "2.gif")
    (tmp_path / "3.gif").unlink()
    recipe = tiny_recipe(world, tmp_path / "run", f"train.replay={{weight: 1.0, source: {path}}}")
    stages: list[str] = []
    with pytest.raises(TuningError) as caught:
        run(recipe, progress=lambda event: stages.append(event.phase))
    assert stages == ["clips of the replay"]
    assert not (tmp_path / "run").exists()
    _, *told = str(caught.value).splitlines()
    assert len(told) == 3
    assert "line 3: clip" in told[0]
    assert "has 9 frames of 32 x 32 (height x width); the recipe's sampling has 5 of" in told[0]
    assert "line 5: clip" in told[1]
    assert "has 5 frames of 32 x 48" in told[1]
    assert "line 7: clip" in told[2]
    assert "no such file" in told[2]
    check_sources(path, read_sources(path)[:1], (5, 32, 32))


@pytest.mark.parametrize("value", ["missing.jsonl", "train.txt", "bas"])
def test_a_source_that_is_not_there(world: Path, tmp_path: Path, value: str) -> None:
    with pytest.raises(TuningError, match=r"train.replay.source: got .*; allowed: base, or"):
        tiny_recipe(world, tmp_path, f"train.replay={{weight: 1.0, source: {value}}}")


def test_the_weight_must_be_said(world: Path, tmp_path: Path) -> None:
    with pytest.raises(TuningError, match=r"train.replay.weight: is missing"):
        tiny_recipe(world, tmp_path, "train.replay={source: base}")
