"""What `generate` refuses before it loads the model."""

from pathlib import Path
from typing import Any

import pytest
import torch

from reward_tuning.cli.generate_options import PromptOptions
from reward_tuning.cli.request import requested_prompts, strength_or_default
from reward_tuning.errors import TuningError
from reward_tuning.inputs.condition_files import ConditionFiles
from tests.reward_tuning.command_line import Command, command
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
    "schedule": (
        "--lora LORA --lora-schedule late",
        "the LoRA schedule is 'late'; allowed: constant, annealed, annealed:POWER, below:SIGMA",
    ),
    "schedule alone": (
        "--lora-schedule annealed",
        "--lora-schedule annealed is for --lora, which is not given",
    ),
    "compiled schedule": (
        "--compile --lora LORA --lora-schedule below:0.7",
        "--compile: not with --lora-schedule below:0.7",
    ),
    "speed": ("--camera zoom --camera-speed nan", "--camera-speed: got nan"),
    "strength": ("--strength nan", "strength nan; allowed: above 0, up to 1"),
    "interval": ("--guidance-steps 0.9 0.2", "--guidance-steps: got 0.9 0.2; allowed: two noise"),
    "high interval": ("--guidance-steps 0.2 1.5", "--guidance-steps: got 0.2 1.5; allowed"),
    "no interval": ("--guidance-steps nan 1", "--guidance-steps: got nan 1; allowed"),
    "unguided": (
        "--guidance-steps 0.2 0.9 --guidance-scale 1",
        "--guidance-steps: --guidance-scale is 1, so nothing is guided",
    ),
    "cache": ("--cache 0", "--cache: threshold of first-block is 0; allowed: greater than 0"),
    "endless cache": ("--cache inf", "--cache: got 'inf'; allowed: auto, none, first-block"),
    "no cache": ("--cache tea", "--cache: got 'tea'; allowed: auto, none, first-block"),
    "tile": ("--tiled-decode --tile 60", "--tile: got 60; allowed: multiples of 8 pixels"),
    "no tile": ("--tiled-decode --tile 0", "--tile: got 0; allowed: multiples of 8 pixels"),
    "overlap": ("--tiled-decode --tile-overlap -8", "--tile-overlap: got -8; allowed"),
    "large overlap": (
        "--tiled-decode --tile 64 --tile-overlap 40",
        "--tile 64, --tile-overlap 40: the overlap must be at most half a tile",
    ),
    "tile alone": ("--tile 64", "--tile 64 is for --tiled-decode, which is not given"),
    "compiled cache": ("--compile --cache 0.1", "--compile: not with --cache 0.1, which changes"),
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
def test_an_output_inside_a_file_is_refused(
    run: Command, words: tuple[Any, ...], tmp_path: Path, monkeypatch: Any, output: str
) -> None:
    forbid_loading(monkeypatch)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    done = run(*words, "--output", tmp_path / output)
    assert done.code == 2
    assert "cannot write in" in done.err
    assert f"{tmp_path / output.split('/', maxsplit=1)[0]} is not a folder" in done.err


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that takes no files: /proc")
def test_an_output_that_cannot_be_written_is_refused(
    run: Command, words: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_loading(monkeypatch)
    done = run(*words, "--output", "/proc/clips")
    assert done.code == 2
    assert "cannot write in /proc: " in done.err
    assert "choose another place" in done.err


@pytest.mark.parametrize(
    ("given", "files", "strength"),
    [
        (None, {}, 1.0),
        (None, {"video": "a.mp4"}, 0.7),
        (None, {"video": "a.mp4", "mask": "b.png"}, 1.0),
        (0.3, {"video": "a.mp4"}, 0.3),
        (0.3, {}, 0.3),
    ],
)
def test_a_video_without_a_mask_has_the_published_strength(
    given: float | None, files: dict[str, str], strength: float
) -> None:
    assert strength_or_default(given, ConditionFiles(**files)) == strength


def test_the_options_conditions_apply_to_every_prompt(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("b\nc\n")
    files = ConditionFiles(image="a.png")
    options = PromptOptions(["a"], tmp_path / "p.txt")
    prompts = requested_prompts(options, "", files)
    assert [one.text for one in prompts] == ["a", "b", "c"]
    assert all(one.files == files for one in prompts)


@pytest.mark.parametrize(
    ("options", "negative", "message"),
    [
        (PromptOptions(), "", "no prompt; give --prompt TEXT or --prompts-file FILE"),
        (PromptOptions(["a\udcff"]), "", "--prompt, --negative-prompt: .*lone surrogate"),
        (PromptOptions(["a"]), "\udcff", "--prompt, --negative-prompt: .*lone surrogate"),
    ],
)
def test_prompts_that_are_refused(options: PromptOptions, negative: str, message: str) -> None:
    with pytest.raises(TuningError, match=message):
        requested_prompts(options, negative, ConditionFiles())
