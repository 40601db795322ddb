"""Sample clips: names, sizes, and the list of their prompts."""

import json
from pathlib import Path

import torch

from reward_tuning.files.clips import read_clip
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.samples import (
    SMALL,
    sample_clips,
    write_clips,
    write_pair,
    write_prompts,
    write_side_clips,
)


def grey(level: float, width: int = 32) -> torch.Tensor:
    return torch.full((5, 3, 32, width), level)


def test_clips_are_named_by_number_and_small_ones_enlarged(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_clips(folder, 7, {0: grey(0.25), 12: grey(0.75, width=SMALL)})
    found = {p.name: read_clip(p) for p in (tmp_path / "samples/step-000007").iterdir()}
    assert found["00.mp4"].shape == (5, 3, 32 * 8, SMALL)
    assert found["12.mp4"].shape == (5, 3, 32, SMALL)
    assert abs(float(found["12.mp4"].mean()) - 0.75) < 0.02


def test_clips_of_a_side_have_paths_from_the_run_folder(tmp_path: Path) -> None:
    found = write_side_clips(RunFolder(tmp_path), 7, "strength 0.5", {3: grey(0.25), 1: grey(0.75)})
    place = "evaluation/step-000007/strength-0.5"
    assert found == {1: f"{place}/01.mp4", 3: f"{place}/03.mp4"}
    assert abs(float(read_clip(tmp_path / found[3]).mean()) - 0.25) < 0.02
    assert read_clip(tmp_path / found[1]).shape == (5, 3, 32 * 8, SMALL)


def test_a_pair_has_the_left_clip_on_the_left(tmp_path: Path) -> None:
    write_pair(grey(0.2), grey(0.8), tmp_path / "pair.mp4")
    found = read_clip(tmp_path / "pair.mp4")
    assert abs(float(found[..., :SMALL].mean()) - 0.2) < 0.02
    assert abs(float(found[..., -SMALL:].mean()) - 0.8) < 0.02
    assert found.shape[3] > 2 * SMALL  # a bar between them


def test_the_list_of_prompts(tmp_path: Path) -> None:
    write_prompts(
        RunFolder(tmp_path), [{"prompt": "一只猫", "seed": 3}, {"prompt": "b", "seed": 4}]
    )
    text = (tmp_path / "samples/prompts.json").read_text(encoding="utf-8")
    assert "一只猫" in text
    assert json.loads(text) == [
        {"file": "00.mp4", "prompt": "一只猫", "seed": 3},
        {"file": "01.mp4", "prompt": "b", "seed": 4},
    ]


def test_the_clips_of_a_step_with_their_prompts(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert sample_clips(folder, 0) == []
    for step in (0, 7):
        write_clips(folder, step, {1: grey(0.5), 0: grey(0.25)})
    write_prompts(folder, [{"prompt": "<b>猫", "seed": 3}, {"prompt": "b", "seed": 4}])
    pair = tmp_path / "samples/before-after/00.mp4"
    write_pair(grey(0.2), grey(0.8), pair)
    (tmp_path / "samples/step-000007/.02.part.mp4").touch()
    found = [(clip.name, clip.path, clip.prompt) for clip in sample_clips(folder, 7, pairs=True)]
    place = folder.samples(7)
    assert found == [
        ("samples/00", place / "00.mp4", "<b>猫"),
        ("samples/01", place / "01.mp4", "b"),
        ("before-after/00", pair, "<b>猫"),
    ]
    assert [clip.name for clip in sample_clips(folder, 7)] == ["samples/00", "samples/01"]
