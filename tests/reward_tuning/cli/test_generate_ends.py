"""`generate` where it cannot work or is stopped: what it says, when, and what it leaves."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
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


# --- what is refused before anything is loaded

REFUSED: dict[str, tuple[str, str]] = {
    "steps": ("--steps 0", "Invalid value for '--steps'"),
    "height": ("--height -16", "Invalid value for '--height'"),
    "no multiple": ("--width 40", "width must be a multiple of 16, got 40. Use 32 or 48"),
    "frames": ("--frames 6", "4k + 1 frames (1, 5, 9, ...), got 6. Use 5 or 9"),
    "negative frames": ("--frames -3", "Invalid value for '--frames'"),
    "guidance": ("--guidance-scale nan", "Invalid value for '--guidance-scale'"),
    "infinite guidance": (
        "--guidance-scale inf",
        "--guidance-scale: got inf; allowed: finite numbers",
    ),
    "rescale": ("--guidance-rescale nan", "Invalid value for '--guidance-rescale'"),
    "scale": ("--lora LORA --lora-scale nan", "--lora-scale: got nan"),
    "two scales": (
        "--lora LORA --lora-scale 0.5 --lora-scale 1",
        "--lora is given 1 times and --lora-scale 2 times; give one scale for each LoRA",
    ),
    "one scale": (
        "--lora LORA --lora LORA --lora-scale 0.5",
        "--lora is given 2 times and --lora-scale 1 times",
    ),
    "scale alone": ("--lora-scale 0.5", "--lora-scale 0.5 is for --lora, which is not given"),
    "speed": ("--camera zoom --camera-speed nan", "--camera-speed: got nan"),
    "strength": ("--strength nan", "strength nan; allowed: above 0, up to 1"),
    "cache": ("--cache 0", "--cache: got 0; allowed: above 0 (0.05 to 0.2 are usual)"),
    "endless cache": ("--cache inf", "--cache: got inf; allowed: above 0"),
    "no cache": ("--cache nan", "--cache: got nan; allowed: above 0"),
    "tile": ("--tiled-decode --tile 60", "--tile: got 60; allowed: multiples of 8 pixels"),
    "no tile": ("--tiled-decode --tile 0", "--tile: got 0; allowed: multiples of 8 pixels"),
    "overlap": ("--tiled-decode --tile-overlap -8", "--tile-overlap: got -8; allowed"),
    "large overlap": (
        "--tiled-decode --tile 64 --tile-overlap 40",
        "--tile 64, --tile-overlap 40: the overlap must be at most half a tile",
    ),
    "tile alone": ("--tile 64", "--tile 64 is for --tiled-decode, which is not given"),
    "compiled cache": ("--compile --cache 0.1", "--compile: not with --cache, which changes"),
    "compiled and streamed": (
        "--compile --memory block-offload",
        "--compile: not with --memory block-offload",
    ),
    "compiled and packed": ("--compile --quantise fp8", "--compile: not with --quantise"),
    "another LoRA": ("--lora LORA", "modules are not in this transformer"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_the_model_is_loaded(
    run: Command,
    words: tuple[Any, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    options, message = REFUSED[name]
    forbid_loading(monkeypatch)
    if "LORA" in options:
        write_foreign_lora(tmp_path / "other.safetensors")
        options = options.replace("LORA", str(tmp_path / "other.safetensors"))
    done = run(*words, *options.split(), "--output", tmp_path / "clips" / "a.png")
    assert done.code == 2
    assert message in " ".join(done.err.replace("│", " ").split())
    assert "Traceback" not in done.err
    assert not (tmp_path / "clips").exists()


def forbid_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("the model is loaded")

    monkeypatch.setattr("base_model.generator.load_generator", loaded)


def write_foreign_lora(path: Path) -> None:
    from safetensors.torch import save_file

    module = "transformer.transformer_blocks.99.attn1.to_q"
    tensors = {f"{module}.lora_{half}.weight": torch.zeros(4, 4) for half in "AB"}
    save_file(tensors, path)


@pytest.mark.parametrize("output", ["file/a.png", "file/clips/", "file/a/b/c.mp4", "link/a.png"])
def test_a_place_that_is_no_folder(
    run: Command, words: tuple[Any, ...], tmp_path: Path, monkeypatch: Any, output: str
) -> None:
    forbid_loading(monkeypatch)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    done = run(*words, "--output", tmp_path / output)
    assert done.code == 2
    assert "nothing can be written in" in done.err
    assert f"{tmp_path / output.split('/', maxsplit=1)[0]} is no folder" in done.err


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that takes no files: /proc")
def test_a_place_that_takes_no_files(
    run: Command, words: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_loading(monkeypatch)
    done = run(*words, "--output", "/proc/clips")
    assert done.code == 2
    assert "nothing can be written in /proc: " in done.err
    assert "choose another place" in done.err


# --- stopped, and a full disk


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
