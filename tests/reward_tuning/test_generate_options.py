"""`generate` beyond its modes: sizes, speed, memory, and what it leaves when it ends early."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from base_model import sampling
from base_model.checkpoint import load_transformer
from base_model.clip_size import own_clip_size
from base_model.generator import Generator, load_generator
from base_model.sampling import euler_sample
from base_model.shipped import WEIGHTS
from base_model.sigmas import sigma_table
from base_model.tiled_decode import Tiling, decode_tiled
from reward_tuning.cheap_steps import CheapSteps
from reward_tuning.drawing import SampledClip, decoded, sample_clip
from reward_tuning.errors import TuningError
from reward_tuning.finetune import exporting as finetuned
from reward_tuning.first_block_cache import FirstBlockCache
from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.full_disk import largest_file
from tests.reward_tuning.kinds import FRAMES, HEIGHT, WIDTH, write_kind

run = pytest.fixture(command, name="run")
SIZE = ("--frames", FRAMES, "--height", HEIGHT, "--width", WIDTH)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kind(tmp_path_factory.mktemp("model"), 16)


@pytest.fixture(scope="module")
def generator(model: Path) -> Generator:
    return load_generator(model)


@pytest.fixture
def words(model: Path) -> tuple[Any, ...]:
    common = ("--prompt", "a red ball", "--steps", 4, "--guidance-scale", 3, "--device", "cpu")
    return ("generate", "--checkpoint", model, *common, *SIZE)


def strip(path: Path) -> Tensor:
    """`(3, H, f W)` of a png."""
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1).float() / 255


def sampled(generator: Generator, **options: Any) -> SampledClip:
    fixed: dict[str, Any] = {"seed": 0, "size": (FRAMES, HEIGHT, WIDTH)}
    fixed |= {"steps": 4, "guidance_scale": 3.0}
    return sample_clip(generator, "a red ball", "", **fixed | options)


# --- size


@pytest.mark.parametrize(
    ("asked", "size"), [((), (9, 64, 64)), (("--frames", 1, "--width", 96), (1, 64, 96))]
)
def test_a_folder_says_its_own_size(
    run: Command, tmp_path: Path, asked: tuple[Any, ...], size: tuple[int, ...]
) -> None:
    shutil.copytree(WEIGHTS / "tiny", tmp_path / "mine")
    done = run(
        *("generate", "--checkpoint", tmp_path / "mine", "--prompt", "a", "--steps", 1),
        *("--device", "cpu", *asked, "--output", tmp_path / "clips", "--format", "png"),
    )
    assert done.code == 0, done.err
    (about,) = map(json.loads, (tmp_path / "clips" / "clips.jsonl").read_text().splitlines())
    assert about["size"] == list(size)
    frames, height, width = size
    assert strip(tmp_path / "clips" / "0000.png").shape == (3, height, frames * width)


def test_a_fine_tuned_checkpoint_keeps_its_size(tmp_path: Path) -> None:
    transformer = load_transformer(WEIGHTS / "tiny")
    weights = dict(transformer.named_parameters())
    finetuned.write_checkpoint(tmp_path / "mine", transformer, weights, WEIGHTS / "tiny")
    assert own_clip_size(tmp_path / "mine") == (9, 64, 64)


def test_a_published_checkpoint_has_the_published_size(
    run: Command, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seen(*_: object, size: tuple[int, ...], **__: object) -> None:
        raise TuningError(f"size {tuple(size)}")

    monkeypatch.setattr("reward_tuning.drawing.sample_clip", seen)
    done = run("generate", "--checkpoint", model, "--prompt", "a", "--output", tmp_path / "a.png")
    assert "size (49, 384, 672)" in done.err


# --- first-block cache


def test_a_cache_that_never_skips_changes_no_byte(
    run: Command, words: tuple[Any, ...], tmp_path: Path
) -> None:
    for name, more in (("a", ()), ("b", ("--cache", 1e-9)), ("c", ("--cache", 1e9))):
        done = run(*words, *more, "--output", tmp_path / f"{name}.png")
        assert done.code == 0, done.err
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b != c


def test_the_threshold_lies_between_two_changes(generator: Generator) -> None:
    """Against the change of the first block's share, measured by a hook on the plain run."""
    shares: list[Tensor] = []
    block = generator.transformer.transformer_blocks[0]
    hook = block.register_forward_hook(lambda _, inputs, out: shares.append(out[0] - inputs[0]))
    plain = sampled(generator, steps=2)
    hook.remove()
    assert (plain.steps, plain.full_steps) == (2, 2)
    assert len(shares[0]) == 2  # both guidance branches are one batch
    change = float((shares[1] - shares[0]).abs().mean() / shares[0].abs().mean())
    below = sampled(generator, steps=2, cheap=CheapSteps(cache=change * 0.999))
    above = sampled(generator, steps=2, cheap=CheapSteps(cache=change * 1.001))
    assert (below.full_steps, above.full_steps) == (2, 1)
    assert torch.equal(below.latents, plain.latents)
    assert float((above.latents - plain.latents).abs().max()) > 1e-4
    again = sampled(generator, steps=2, cheap=CheapSteps(cache=change * 1.001))
    assert torch.equal(again.latents, above.latents)  # the cache begins empty
    assert torch.equal(sampled(generator, steps=2).latents, plain.latents)  # nothing is left of it


def test_a_batch_in_the_cache_is_its_samples(generator: Generator) -> None:
    """Where every sample would decide alike: only the first step is computed in full."""
    prompts, sigmas = ["a red ball", "a cat"], sigma_table(4)
    shape = generator.latent_shape(2, FRAMES, HEIGHT, WIDTH)
    noise = generator.initial_noise(shape, [0, 1])

    def latents(rows: slice) -> Tensor:
        chosen = prompts[rows]
        condition = generator.condition(generator.encode_prompts(chosen, [""] * len(chosen)))
        with FirstBlockCache(generator.transformer, 1e9) as cache:
            found = euler_sample(
                generator, condition, noise[rows], sigmas, 3.0, around_step=cache.call
            )
        assert cache.full_calls == 1
        return found

    both = latents(slice(0, 2))
    for i in range(2):
        torch.testing.assert_close(both[i : i + 1], latents(slice(i, i + 1)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_cache_on_streamed_blocks(generator: Generator, model: Path, scale: float) -> None:
    """The same bits, with and without the negative branch."""
    streamed = load_generator(model, memory="block-offload")
    options: dict[str, Any] = {"guidance_scale": scale, "cheap": CheapSteps(cache=1e9)}
    one, other = sampled(generator, **options), sampled(streamed, **options)
    assert one.full_steps == other.full_steps == 1
    assert torch.equal(one.latents, other.latents)
    assert not torch.equal(one.latents, sampled(generator, guidance_scale=scale).latents)


# --- decode in tiles, attention, compiler


def test_tiles(run: Command, words: tuple[Any, ...], generator: Generator, tmp_path: Path) -> None:
    """The command's clip is that of `decode_tiled`; tiles that cover the frame change nothing."""
    for name, more in (
        ("whole", ()),
        ("one", ("--tiled-decode",)),
        ("many", ("--tiled-decode", "--tile", 32, "--tile-overlap", 16)),
    ):
        done = run(*words, *more, "--output", tmp_path / f"{name}.png")
        assert done.code == 0, done.err
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "whole.png").read_bytes()
    latents = sampled(generator).latents
    with torch.no_grad():
        tiled = decode_tiled(generator.vae, latents, tiling=Tiling(4, 2))[0]
        whole = generator.decode(latents)[0]
    found = strip(tmp_path / "many.png")
    assert float((found - torch.cat(list(tiled), dim=2)).abs().max()) < 0.6 / 255
    assert float((found - torch.cat(list(whole), dim=2)).abs().max()) > 1 / 255


def test_tiles_of_a_vae_that_rests(generator: Generator, model: Path) -> None:
    latents = sampled(generator).latents
    resting = load_generator(model, memory="offload")
    tiling = Tiling(4, 2)
    assert torch.equal(decoded(resting, latents, tiling), decoded(generator, latents, tiling))


def test_other_attention(run: Command, words: tuple[Any, ...], tmp_path: Path) -> None:
    for name in ("math", "flash"):
        done = run(*words, "--attention", name, "--output", tmp_path / f"{name}.png")
        assert done.code == 0, done.err
    difference = (strip(tmp_path / "math.png") - strip(tmp_path / "flash.png")).abs()
    assert float(difference.max()) < 1.1 / 255


@pytest.mark.slow
def test_compiled(run: Command, words: tuple[Any, ...], tmp_path: Path) -> None:
    plain, compiled = tmp_path / "plain.png", tmp_path / "compiled.png"
    assert run(*words, "--output", plain).code == 0
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    done = run(*words, "--compile", "--output", compiled)
    assert done.code == 0, done.err
    assert torch._dynamo.utils.counters["stats"]["calls_captured"] > 100  # of the model's graph
    assert float((strip(plain) - strip(compiled)).abs().max()) < 1.1 / 255


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
        "--guidance-scale: got inf; wanted a finite number",
    ),
    "rescale": ("--guidance-rescale nan", "Invalid value for '--guidance-rescale'"),
    "scale": ("--lora-scale nan", "--lora-scale: got nan"),
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
