"""Drawing that is stopped or meets a full disk: what it says and what it leaves."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from base_model.sampling import sample as sampling
from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.full_disk import largest_file
from tests.reward_tuning.kinds import FRAMES, HEIGHT, WIDTH, write_kind

run = pytest.fixture(command, name="run")
SIZE = ("--frames", FRAMES, "--height", HEIGHT, "--width", WIDTH)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kind(tmp_path_factory.mktemp("model"), 16)


@pytest.fixture
def words(model: Path) -> tuple[Any, ...]:
    common = ("--prompt", "a red ball", "--steps", 4, "--guidance-scale", 3, "--device", "cpu")
    return ("generate", "--checkpoint", model, *common, *SIZE)


def test_stopped_between_two_steps(
    run: Command, words: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second clip: the first is there, and what is known of it."""
    calls, guided = [], sampling.guided_velocity

    def counted(*arguments: Any, **options: Any) -> Tensor:
        calls.append(1)
        if len(calls) == 6:
            signal.raise_signal(signal.SIGTERM)
        return guided(*arguments, **options)

    monkeypatch.setattr(sampling, "guided_velocity", counted)
    done = run(*words, "--prompt", "a cat", "--format", "png", "--output", tmp_path / "clips")
    assert done.code == 143
    assert done.err.endswith("stopped by SIGTERM; 1 of 2 clips are written\n")
    found = sorted(path.name for path in (tmp_path / "clips").iterdir())
    assert found == ["0000.png", "clips.jsonl"]
    (line,) = (tmp_path / "clips" / "clips.jsonl").read_text().splitlines()
    assert json.loads(line)["prompt"] == "a red ball"


@pytest.mark.parametrize(("name", "code"), [("TERM", 143), ("INT", 130)])
def test_stopped_while_a_clip_is_written(
    run: Command,
    words: tuple[Any, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    code: int,
) -> None:
    """An ffmpeg that has written half when the signal comes, and would go on for a minute."""
    ffmpeg, target = tmp_path / "ffmpeg", tmp_path / "clips" / "a.mp4"
    lines = ("for last; do :; done", 'echo half > "$last"', f"kill -{name} {os.getpid()}")
    ffmpeg.write_text("\n".join(("#!/bin/sh", "cat > /dev/null", *lines, "exec sleep 60")))
    ffmpeg.chmod(0o755)
    target.parent.mkdir()
    target.write_text("before")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(ffmpeg))
    done = run(*words, "--overwrite", "--output", target)
    assert done.code == code
    assert "0 of 1 clips are written" in done.err
    assert [path.name for path in target.parent.iterdir()] == ["a.mp4"]
    assert target.read_text() == "before"


@pytest.mark.parametrize("ending", ["mp4", "gif", "png"])
def test_a_full_disk(run: Command, words: tuple[Any, ...], tmp_path: Path, ending: str) -> None:
    with largest_file(600):
        done = run(*words, "--output", tmp_path / f"a.{ending}")
    assert done.code == 2
    assert f"a.{ending}: cannot be written (" in done.err
    assert "free some space or choose another place" in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_at_the_last_file(
    run: Command, words: tuple[Any, ...], tmp_path: Path
) -> None:
    """Clips of a few hundred bytes, and what is known of them in a larger file."""
    common = (*words, "--frames", 1, "--height", 16, "--width", 16, "--format", "png")
    prompts = [option for i in range(9) for option in ("--prompt", f"a cat {i}" + " and" * 99)]
    with largest_file(1500):
        done = run(*common, *prompts, "--output", tmp_path / "clips")
    assert done.code == 2
    assert "clips.jsonl could not be written: File too large" in done.err
    names = sorted(path.name for path in (tmp_path / "clips").iterdir())
    assert names == [f"{i:04d}.png" for i in range(10)]
