"""ffmpeg's options in each version, file names as URLs, and its messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from reward_tuning.files import ffmpeg
from reward_tuning.files.clips import write_clip
from reward_tuning.files.video_frames import probe_video
from reward_tuning.finetune.video_files import probe
from tests.reward_tuning.finetune.clip_folder import numbered_clip


@pytest.mark.parametrize("name", ["a: b.mp4", "-dash.mp4", "100%d.mp4", "a 'b'.mp4"])
def test_names_that_are_no_protocols_or_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    write_clip(numbered_clip(5, 32, 48), path)
    assert probe(path, "video").frames == 5
    monkeypatch.chdir(tmp_path)  # where ffmpeg sees the name alone
    assert probe_video(Path(name)).frames == 5
    monkeypatch.undo()


def test_messages_have_no_addresses_and_tags() -> None:
    stderr = b"[h264 @ 0x55d0] [error] no frame!\r\n\nConversion failed!\n"
    lines = ffmpeg.messages(stderr)
    assert lines == ["[h264] [error] no frame!", "Conversion failed!"]
    assert ffmpeg.without_tags(lines[0]) == "no frame!"
    assert ffmpeg.failure(lines, 1) == "Conversion failed!"
    full = "[out#0/mp4] Error writing trailer: No space left on device"
    assert ffmpeg.failure([full, *lines], 1) == "No space left on device"
    assert ffmpeg.failure([], -25) == "ended by SIGXFSZ"
    assert ffmpeg.failure([], 3) == "ended with code 3"


@pytest.mark.parametrize(
    ("version", "option"),
    [
        ("4.2.2-static https://johnvansickle.com/ffmpeg/", "-vsync"),
        ("5.1.6-0+deb12u1", "-vsync"),
        ("6.1.1-3ubuntu5", "-vsync"),
        ("7.0.2-static", "-fps_mode"),
        ("n9.0.2-17-g2a571b6068-20260930", "-fps_mode"),
        ("N-118193-g5f38c82536", "-fps_mode"),
    ],
)
def test_the_options_of_each_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, option: str
) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\necho 'ffmpeg version {version} Copyright (c) 2000'\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    assert ffmpeg.passthrough_options()[0] == option
