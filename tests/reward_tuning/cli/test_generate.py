"""generate: what it refuses, what it overwrites, and prompts that name their conditions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from reward_tuning.files.clips import write_clip
from tests.base_model.conftest import checkpoint, text_folder
from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.kinds import FRAMES, HEIGHT, WIDTH, write_kind, write_media

__all__ = ["checkpoint", "text_folder"]  # fixtures
run = pytest.fixture(command, name="run")


@pytest.fixture(scope="module")
def model(checkpoint: Path, text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint: golden transformer and VAE, random text encoder."""
    folder = tmp_path_factory.mktemp("model") / "whole"
    shutil.copytree(checkpoint, folder)
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(text_folder / part, folder / part)
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "x.mp4"], "no prompt"),
        (["--output", "x.mp4", "--prompt", "a", "--prompt", "b"], "there are 2 prompts"),
        (["--output", "x", "--prompt", "a", "--format", "avi"], "allowed: mp4, gif, png"),
        (["--output", "x", "--prompt", "a", "--dtype", "bf16"], "allowed: float32"),
        (["--output", "x", "--prompt", "a", "--checkpoint", "gone"], "No generator checkpoint"),
        (["--output", "x", "--prompts-file", "gone.txt"], "cannot be read"),
        (["--output", "x", "--prompt", "a", "--frames", "4"], "4k + 1"),
        (["--output", "x", "--prompt", "a", "--height", "40"], "multiple of 16"),
        (["--output", "x", "--prompt", "a", "--lora", "gone"], "no LoRA at gone"),
    ],
)
def test_generate_refuses(
    run: Command,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if "--checkpoint" not in arguments:
        arguments = [*arguments, "--checkpoint", str(model), "--device", "cpu"]
    done = run("generate", *arguments)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_clip_must_have_a_known_ending(run: Command, tmp_path: Path) -> None:
    done = run("generate", "--prompt", "a", "--output", tmp_path / "one.avi")
    assert done.code == 2
    assert "allowed: a clip that ends in .mp4, .gif, .png, or a folder" in done.err
    gone = run("generate", "--prompt", "a", "--lora", tmp_path / "no", "--output", tmp_path / "x")
    assert "no LoRA at" in gone.err


MINE = b"a clip of mine"


@pytest.mark.parametrize("name", ["0000.mp4", "clips.jsonl", "0000.mask.mp4"])
def test_generate_overwrites_nothing_unasked(run: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(MINE)
    ran = run("generate", "--prompt", "a", "--output", tmp_path, "--previews")
    assert ran.code == 2
    assert f"--output: {tmp_path / name} exists and is not overwritten" in ran.err
    assert (tmp_path / name).read_bytes() == MINE


LONG = "x" * 256


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "a 'clip'.png"
    write_clip(torch.rand(1, 3, 32, 32), path)
    return path


@pytest.mark.parametrize("image", ["a\0b", LONG])
def test_a_condition_that_no_file_can_have_as_a_name(run: Any, tmp_path: Path, image: str) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "a", "image": image}) + "\n")
    done = run("generate", "--prompts-file", prompts, "--output", tmp_path / "clips")
    assert done.code == 2
    assert "line 1" in done.err


def test_an_image_by_its_path(run: Any, clip: Path) -> None:
    words = ("generate", "--prompt", "a", "--output", clip.parent / "b.mp4", "--image", clip)
    done = run(*words)
    assert done.code == 2
    assert "inpaint" in done.err  # the embedded checkpoint follows text alone


COMMON = [
    *("--prompt", "a red ball", "--steps", "4", "--guidance-scale", "3", "--device", "cpu"),
    *("--height", str(HEIGHT), "--width", str(WIDTH)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_media(tmp_path_factory.mktemp("modes"))
    for channels in (16, 33, 48, 38):
        write_kind(folder / str(channels), channels)
    return folder


def strip(path: Path) -> Tensor:
    """`(3, H, f W)` of a png."""
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1).float() / 255


def test_nothing_is_overwritten_unasked(run: Command, folder: Path, tmp_path: Path) -> None:
    arguments = ["generate", "--checkpoint", folder / "16", *COMMON, "--frames", "1"]
    assert run(*arguments, "--output", tmp_path / "a.png").code == 0
    before = (tmp_path / "a.png").read_bytes()
    refused = run(*arguments, "--seed", 1, "--output", tmp_path / "a.png")
    assert refused.code == 2
    assert (
        "a.png exists and is not overwritten; give another --output, or --overwrite" in refused.err
    )
    assert (tmp_path / "a.png").read_bytes() == before
    assert run(*arguments, "--seed", 1, "--overwrite", "--output", tmp_path / "a.png").code == 0
    assert (tmp_path / "a.png").read_bytes() != before
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "clips.jsonl").touch()
    refused = run(*arguments, "--output", tmp_path / "folder")
    assert refused.code == 2
    assert "clips.jsonl exists" in refused.err


def test_a_prompt_file_says_what_each_clip_follows(
    run: Command, folder: Path, tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "a red ball", "image": "start.png"},
        {"prompt": "a cat", "video": "video.mp4", "mask": "mask.png"},
        {"prompt": "a dog"},
    ]
    file = folder / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    arguments = ["generate", "--checkpoint", folder / "33", *COMMON[2:], "--frames", FRAMES]
    done = run(*arguments, "--prompts-file", file, "--format", "png", "--output", tmp_path / "o")
    assert done.code == 0, done.err
    lines = (tmp_path / "o" / "clips.jsonl").read_text().splitlines()
    about = [json.loads(line) for line in lines]
    assert about[0]["image"] == str(folder / "start.png")
    assert about[1]["mask"] == str(folder / "mask.png")
    assert "image" not in about[2]
    # the first is what the options give
    alone = run(
        *("generate", "--checkpoint", folder / "33", *COMMON, "--frames", FRAMES),
        *("--image", folder / "start.png", "--output", tmp_path / "alone.png"),
    )
    assert alone.code == 0, alone.err
    assert torch.equal(strip(tmp_path / "alone.png"), strip(tmp_path / "o" / "0000.png"))
    both = run(*arguments, "--prompts-file", file, "--image", folder / "end.png", "--output", "x")
    assert both.code == 2
    assert "names the conditions of 'a red ball', and so do the options" in both.err
