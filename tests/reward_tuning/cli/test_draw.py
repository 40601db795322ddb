"""Drawing: a clip against its steps by hand, LoRAs, memory modes."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from base_model.generator import load_generator
from base_model.sampling.guidance import Guidance
from base_model.sampling.sigmas import sigma_table
from reward_tuning.sampling.draw import decoded, sample_clip
from tests.base_model.conftest import checkpoint, text_folder
from tests.goldens import FOLDER
from tests.reward_tuning.command_line import Command, command

__all__ = ["checkpoint", "text_folder"]  # fixtures
run = pytest.fixture(command, name="run")
GOLDEN_LORA = FOLDER / "lora_original_layout.safetensors"
SIZE = ["--frames", 5, "--height", 32, "--width", 48, "--steps", 2, "--device", "cpu"]


@pytest.fixture(scope="module")
def model(checkpoint: Path, text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole checkpoint: golden transformer and VAE, random text encoder."""
    folder = tmp_path_factory.mktemp("model") / "whole"
    shutil.copytree(checkpoint, folder)
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(text_folder / part, folder / part)
    return folder


def test_generate_one_file(run: Command, model: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "clip.png"
    arguments = ["--checkpoint", model, "--prompt", "a red ball", "--seed", 7, *SIZE]
    done = run("generate", *arguments, "--guidance-scale", 4, "--output", path)
    assert done.code == 0, done.err
    assert done.out == f"{path}\n"
    assert [one.name for one in path.parent.iterdir()] == ["clip.png"]
    assert "step 2 of 2" in done.err or "clips 0/1" in done.err

    # the same clip by hand: Euler steps of the guided velocity, in the published sign
    generator = load_generator(model)
    text = generator.encode_prompts(["a red ball"], [""])
    condition = generator.condition(text)
    x = generator.initial_noise(generator.latent_shape(1, 5, 32, 48), [7])
    sigmas = sigma_table(2)
    with torch.no_grad():
        for s, after in itertools.pairwise(sigmas):
            positive = generator.velocity(x, s, condition.positive)
            negative = generator.velocity(x, s, condition.negative)
            x = x + (after - s) * (negative + 4 * (positive - negative))
        wanted = generator.decode(x)[0]
    with Image.open(path) as image:
        found = torch.from_numpy(np.array(image)).reshape(32, 5, 48, 3).permute(1, 3, 0, 2)
    assert (found - wanted * 255).abs().max() <= 0.51  # rounding to bytes


def test_generate_depends_on_seed_prompt_and_negative(model: Path) -> None:
    generator = load_generator(model)

    def clip(
        prompt: str, negative: str, seed: int, scale: float = 3.0, rescale: float = 0.0
    ) -> torch.Tensor:
        sampled = sample_clip(
            generator,
            prompt,
            negative,
            seed=seed,
            size=(1, 32, 32),
            steps=2,
            guidance=Guidance(scale, rescale),
            on_step=lambda step: None,
        )
        return decoded(generator, sampled.latents)

    one = clip("a red ball", "", 0)
    assert torch.equal(one, clip("a red ball", "", 0))
    for other in (
        clip("a red ball", "", 1),
        clip("一个", "", 0),
        clip("a red ball", "ball", 0),
        clip("a red ball", "", 0, 5.0),
        clip("a red ball", "", 0, 3.0, 1.0),
    ):
        assert not torch.equal(one, other)


def test_generate_a_folder_of_prompts(run: Command, model: Path, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a red ball\n一个红色的球\n")
    folder = tmp_path / "clips"
    done = run(
        *("generate", "--checkpoint", model, "--prompts-file", tmp_path / "p.txt"),
        *("--prompt", "first", "--format", "gif", "--format", "png", "--seed", 5),
        *("--output", folder, *SIZE),
    )
    assert done.code == 0, done.err
    names = [f"000{i}.{ending}" for i in range(3) for ending in ("gif", "png")]
    assert sorted(path.name for path in folder.iterdir()) == [*names, "clips.jsonl"]
    lines = (folder / "clips.jsonl").read_text(encoding="utf-8").splitlines()
    about = [json.loads(line) for line in lines][::2]
    assert [{key: one[key] for key in ("file", "prompt", "seed")} for one in about] == [
        {"file": "0000.gif", "prompt": "first", "seed": 5},
        {"file": "0001.gif", "prompt": "a red ball", "seed": 6},
        {"file": "0002.gif", "prompt": "一个红色的球", "seed": 7},
    ]
    assert {(one["checkpoint"], one["lora"], one["lora_scale"]) for one in about} == {
        (str(model), None, None)
    }


def test_generate_with_a_lora(run: Command, model: Path, tmp_path: Path) -> None:
    arguments = ["--checkpoint", model, "--prompt", "a", *SIZE, "--output"]
    for name, more in (
        ("base.png", []),
        ("zero.png", ["--lora", GOLDEN_LORA, "--lora-scale", 0]),
        ("full.png", ["--lora", GOLDEN_LORA]),
        ("half.png", ["--lora", GOLDEN_LORA, "--lora-scale", 0.5]),
    ):
        done = run("generate", *arguments, tmp_path / name, *more)
        assert done.code == 0, done.err
    read = {path.stem: path.read_bytes() for path in tmp_path.glob("*.png")}
    assert read["zero"] == read["base"]
    assert len({read["base"], read["half"], read["full"]}) == 3


def test_generate_with_a_lora_schedule(run: Command, model: Path, tmp_path: Path) -> None:
    """Below the last noise level it is the base; annealed it lies between base and LoRA."""
    arguments = ["--checkpoint", model, "--prompt", "a", *SIZE, "--format", "png", "--output"]
    clips = {}
    for name, more in (
        ("base", []),
        ("full", ["--lora", GOLDEN_LORA]),
        ("never", ["--lora", GOLDEN_LORA, "--lora-schedule", "below:0.0001"]),
        ("annealed", ["--lora", GOLDEN_LORA, "--lora-schedule", "annealed"]),
        ("always", ["--lora", GOLDEN_LORA, "--lora-schedule", "annealed:1e-9"]),
    ):
        done = run("generate", *arguments, tmp_path / name, *more)
        assert done.code == 0, done.err
        clips[name] = next((tmp_path / name).glob("*.png")).read_bytes()
    assert clips["never"] == clips["base"]
    assert len({clips["base"], clips["annealed"], clips["full"]}) == 3
    pixels = {
        name: np.asarray(Image.open(next((tmp_path / name).glob("*.png"))), float) for name in clips
    }
    far = abs(pixels["full"] - pixels["base"]).mean()
    assert abs(pixels["annealed"] - pixels["base"]).mean() < far
    about = json.loads((tmp_path / "annealed" / "clips.jsonl").read_text(encoding="utf-8"))
    assert about["lora_schedule"] == "annealed"
    about = json.loads((tmp_path / "full" / "clips.jsonl").read_text(encoding="utf-8"))
    assert "lora_schedule" not in about


def test_generate_with_several_loras(run: Command, model: Path, tmp_path: Path) -> None:
    """Each counts, at its own scale: half and half of one is the whole, and plus minus the base."""
    arguments = ["--checkpoint", model, "--prompt", "a", *SIZE, "--format", "png", "--output"]
    two = ["--lora", GOLDEN_LORA, "--lora", GOLDEN_LORA]
    clips = {}
    for name, more in (
        ("base", []),
        ("full", ["--lora", GOLDEN_LORA]),
        ("halves", [*two, "--lora-scale", 0.25, "--lora-scale", 0.75]),
        ("twice", two),
        ("double", ["--lora", GOLDEN_LORA, "--lora-scale", 2]),
        ("against", [*two, "--lora-scale", 1, "--lora-scale", -1]),
    ):
        done = run("generate", *arguments, tmp_path / name, *more)
        assert done.code == 0, done.err
        clips[name] = np.asarray(Image.open(next((tmp_path / name).glob("*.png"))), float)

    def differ(a: str, b: str) -> float:
        return float(abs(clips[a] - clips[b]).max())

    assert max(differ("halves", "full"), differ("twice", "double")) <= 1  # of 255, by rounding
    assert differ("against", "base") <= 1
    assert min(differ("base", "full"), differ("full", "double")) > 3
    about = json.loads((tmp_path / "halves" / "clips.jsonl").read_text(encoding="utf-8"))
    assert about["lora"] == [str(GOLDEN_LORA)] * 2
    assert about["lora_scale"] == [0.25, 0.75]


def test_generate_warns_of_a_lora_without_effect(run: Command, model: Path, tmp_path: Path) -> None:
    tensors = load_file(GOLDEN_LORA)
    zero = {k: v * 0 if "lora_up" in k else v for k, v in tensors.items()}
    save_file(zero, tmp_path / "zero.safetensors")
    arguments = ["--checkpoint", model, "--prompt", "a", *SIZE, "--output", tmp_path / "a.png"]
    done = run("generate", *arguments, "--lora", tmp_path / "zero.safetensors")
    assert done.code == 0
    assert done.err.count("zero.safetensors changes nothing") == 1


def test_generate_in_every_memory_mode(run: Command, model: Path, tmp_path: Path) -> None:
    arguments = ["--checkpoint", model, "--prompt", "a red ball", "--seed", 7, *SIZE]
    for memory in ("resident", "offload", "block-offload"):
        path = tmp_path / f"{memory}.png"
        done = run("generate", *arguments, "--memory", memory, "--output", path)
        assert done.code == 0, done.err
        assert path.read_bytes() == (tmp_path / "resident.png").read_bytes()
    done = run("generate", *arguments, "--quantise", "fp8", "--output", tmp_path / "fp8.png")
    assert done.code == 0, done.err
    clips = [np.asarray(Image.open(tmp_path / f"{n}.png"), float) for n in ("resident", "fp8")]
    assert 0 < abs(clips[0] - clips[1]).mean() < 10
    for option, text in (("--memory", "disk"), ("--quantise", "int2")):
        done = run("generate", *arguments, option, text, "--output", tmp_path / "no.png")
        assert done.code == 2
        assert f"{option}: got '{text}'; allowed: " in done.err
