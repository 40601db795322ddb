"""`generate` beyond its modes: sizes, caches, compiler, tiles, attention."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from base_model.core.family import FAMILY
from base_model.files.shipped import WEIGHTS
from base_model.generator import Generator, load_generator
from base_model.loading.checkpoint import load_transformer
from base_model.loading.clip_size import own_clip_size
from base_model.networks.tiled_decode import Tiling, decode_tiled
from base_model.sampling import sample as sampling
from base_model.sampling.guidance import Guidance
from base_model.sampling.sample import euler_sample
from base_model.sampling.sigmas import sigma_table
from reward_tuning.cli.generate_options import ConditionOptions, CostOptions
from reward_tuning.errors import TuningError
from reward_tuning.finetune import exporting as finetuned
from reward_tuning.inputs.condition_files import NO_CONDITION
from reward_tuning.sampling.draw import SampledClip, decoded, sample_clip
from reward_tuning.sampling.first_block_cache import FirstBlockCache
from tests.reward_tuning.cheap_rollouts import first_block
from tests.reward_tuning.cli.test_request import forbid_loading
from tests.reward_tuning.command_line import Command, command
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
    fixed |= {"steps": 4, "guidance": Guidance(3.0)}
    return sample_clip(generator, "a red ball", "", **fixed | options)


# --- size


@pytest.mark.parametrize(
    ("asked", "size"), [((), (9, 64, 64)), (("--frames", 1, "--width", 96), (1, 64, 96))]
)
def test_a_checkpoint_names_its_own_size(
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

    monkeypatch.setattr("reward_tuning.sampling.draw.sample_clip", seen)
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
    below = sampled(generator, steps=2, cheap=first_block(change * 0.999))
    above = sampled(generator, steps=2, cheap=first_block(change * 1.001))
    assert (below.full_steps, above.full_steps) == (2, 1)
    assert torch.equal(below.latents, plain.latents)
    assert float((above.latents - plain.latents).abs().max()) > 1e-4
    again = sampled(generator, steps=2, cheap=first_block(change * 1.001))
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
                generator, condition, noise[rows], sigmas, Guidance(3.0), around_step=cache.call
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
    options: dict[str, Any] = {
        "guidance": Guidance(scale),
        "cheap": first_block(1e9),
    }
    one, other = sampled(generator, **options), sampled(streamed, **options)
    assert one.full_steps == other.full_steps == 1
    assert torch.equal(one.latents, other.latents)
    assert not torch.equal(one.latents, sampled(generator, guidance=Guidance(scale)).latents)


# --- which cache


@pytest.mark.slow
def test_the_automatic_cache(run: Command, tmp_path: Path) -> None:
    """On `tiny` from 16 steps on: said, written down, close to the plain clip, and a flag away."""
    one = ["--checkpoint", "tiny", "--prompt", "a", "--frames", "1", "--steps"]
    clips = {}
    for name, more in (
        ("few", ["15"]),
        ("plain few", ["15", "--cache", "none"]),
        ("auto", ["16"]),
        ("named", ["16", "--cache", "taylor:2"]),
        ("plain", ["16", "--cache", "none"]),
    ):
        done = run("generate", *one, *more, "--format", "png", "--output", tmp_path / name)
        assert done.code == 0, done.err
        assert ("--cache taylor:2 is on; --cache none computes" in done.err) == (name == "auto")
        (line,) = (tmp_path / name / "clips.jsonl").read_text().splitlines()
        assert json.loads(line)["cache"] == ("taylor:2" if name in {"auto", "named"} else None)
        (clips[name],) = (path.read_bytes() for path in (tmp_path / name).glob("*.png"))
    assert clips["few"] == clips["plain few"]
    assert clips["auto"] == clips["named"] != clips["plain"]


def test_teacache_without_coefficients_is_refused_before_loading(
    run: Command, words: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_loading(monkeypatch)
    done = run(*words, "--cache", "teacache:0.05", "--output", tmp_path / "a.png")
    assert done.code == 2
    assert "no coefficients are known for a transformer of" in " ".join(done.err.split())


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


def test_other_attention(
    run: Command, words: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The backend is really entered, and changes no more than rounding."""
    entered, backend = [], sampling.attention_backend

    def seen(name: Any, like: Tensor) -> Any:
        entered.append(name)
        return backend(name, like)

    monkeypatch.setattr(sampling, "attention_backend", seen)
    for name in ("math", "flash"):
        done = run(*words, "--attention", name, "--output", tmp_path / f"{name}.png")
        assert done.code == 0, done.err
    assert entered == ["math", "flash"]
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


# --- sections


def test_conditions_become_absolute_files_and_nothing_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").touch()
    assert ConditionOptions(strength=0.5, previews=True).files() == NO_CONDITION
    found = ConditionOptions(control=[Path("a.mp4")], control_type="canny", camera="pan left")
    assert found.files().given == {
        "control": (str(tmp_path / "a.mp4"),),
        "control_type": "canny",
        "camera": "pan left",
    }
    with pytest.raises(TuningError, match=r"gone\.png: no such file"):
        ConditionOptions(image=Path("gone.png")).files()


def test_tiles_have_the_defaults_of_the_decoder() -> None:
    assert CostOptions().tile_sides is None
    tile, overlap = CostOptions(tiled_decode=True).tile_sides or (0, 0)
    assert Tiling(tile // FAMILY.space_stride, overlap // FAMILY.space_stride) == Tiling()
    assert CostOptions(tiled_decode=True, tile=64, tile_overlap=16).tile_sides == (64, 16)


def test_quantize_is_quantise(run: Command, words: tuple[Any, ...], tmp_path: Path) -> None:
    done = run(*words, "--quantize", "int2", "--output", tmp_path / "a.png")
    assert done.code == 2
    assert "--quantise: got 'int2'; allowed: int8, nf4, fp8" in done.err
