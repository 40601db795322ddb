"""The command line on a small checkpoint in the exact published layout."""

from pathlib import Path

import pytest

from reward_tuning.clips import read_clip
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
