"""The command line on checkpoints as they come: published, and shipped as a difference."""

import json
from pathlib import Path

import pytest

from reward_tuning.files.clips import read_clip
from tests.published_layout import write_published
from tests.reward_tuning.command_line import Command, command

run = pytest.fixture(command, name="run")


def test_generate_on_the_published_files(run: Command, tmp_path: Path) -> None:
    folder = write_published(tmp_path / "EasyAnimateV5.1-7b-zh-InP", "inpaint")
    options = ["--frames", 5, "--height", 32, "--width", 32, "--steps", 2, "--device", "cpu"]
    clip = tmp_path / "clip.mp4"
    done = run(
        "generate", "--checkpoint", folder, "--prompt", "一个红色的球", "--output", clip, *options
    )
    assert done.code == 0, done.err
    assert read_clip(clip).shape == (5, 3, 32, 32)


def test_convert_writes_the_whole_of_a_shipped_difference(run: Command, tmp_path: Path) -> None:
    target = tmp_path / "inpaint"
    done = run("convert", "tiny-inpaint", target, "--layout", "diffusers")
    assert done.code == 0, done.err
    assert "tiny-inpaint" not in done.out  # no path of the cache
    index = json.loads((target / "model_index.json").read_text())
    assert index["_class_name"] == "EasyAnimateInpaintPipeline"
    again = run("convert", "tiny-inpaint", target, "--layout", "diffusers")
    assert again.code == 2
    assert "already exists. Choose another folder" in again.err


def test_convert_says_what_does_not_open(run: Command, tmp_path: Path) -> None:
    folder = write_published(tmp_path / "new-style", "text")
    config = folder / "text_encoder" / "config.json"
    content = json.loads(config.read_text())
    content["text_config"] = {key: content[key] for key in ("hidden_size", "num_hidden_layers")}
    config.write_text(json.dumps(content))
    done = run("convert", folder, tmp_path / "d", "--layout", "original", "--dtype", "bfloat16")
    assert done.code == 0, done.err
    assert "transformers 4.46) cannot open it" in done.err.replace("\n", " ")
