"""The small decoder in a run: which steps use it, what it is given, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from base_model.errors import GeneratorError
from base_model.generator import Generator, load_generator
from base_model.loading.checkpoint import load_vae
from base_model.loading.small_decoder import write_small_decoder
from base_model.networks.small_decoder import (
    DecodedBy,
    SmallDecoder,
    SmallDecoderConfig,
    decode_small,
    vae_fingerprint,
)
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.preflight import check_run
from reward_tuning.tuning.small_decoding import attach_small_decoder
from reward_tuning.tuning.step import StepOptions
from reward_tuning.tuning.trainer import options_at, run
from tests.reward_tuning.tiny_run import tiny_recipe, write_world

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARD_TUNING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def small(world: Path) -> Path:
    """A random small decoder of the world's VAE."""
    torch.manual_seed(0)
    decoder = SmallDecoder(SmallDecoderConfig(widths=(32, 24, 8), blocks=(1, 1, 1)))
    path = world / "small.safetensors"
    fingerprint = vae_fingerprint(load_vae(world / "generator"))
    write_small_decoder(path, decoder, fingerprint=fingerprint, command="a command")
    return path


def recipe_of(world: Path, small: Path, *overrides: str, output: Path = Path("unused")) -> Recipe:
    keys = ("train.decoder=small", f"train.small_decoder={small}")
    return tiny_recipe(world, output, *keys, *overrides)


def test_every_nth_step_decodes_with_the_vae(world: Path, small: Path) -> None:
    options = StepOptions(decoder="small")
    train = recipe_of(world, small, "train.true_decoder_every=3").train
    used = [options_at(options, train, step).decoder == "small" for step in range(1, 8)]
    assert used == [True, True, False, True, True, False, True]
    train = recipe_of(world, small).train
    assert all(options_at(options, train, step).decoder == "small" for step in range(1, 8))


@pytest.mark.slow
def test_a_run_decodes_as_its_recipe_says(
    world: Path, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[bool, bool]] = []
    plain = Generator.decode

    def decode(
        self: Generator, latents: Any, *args: Any, by: DecodedBy = "vae", **rest: Any
    ) -> Any:
        asked.append((by == "small", latents.requires_grad))
        return plain(self, latents, *args, by=by, **rest)

    monkeypatch.setattr(Generator, "decode", decode)
    keys = ("train.steps=4", "train.true_decoder_every=2", "train.sample_decoder=small")
    recipe = recipe_of(world, small, *keys, "evaluation.prompts=2", output=tmp_path / "a")
    run(recipe)
    training = [used for used, with_gradient in asked if with_gradient]
    assert training == [True, False, True, False]
    first_training = asked.index((True, True))
    assert [used for used, _ in asked[:first_training]] == [True]  # samples before the first step
    after = [used for used, with_gradient in asked[first_training:] if not with_gradient]
    assert after
    assert not any(after)  # the evaluation is of the VAE


def test_the_generator_gets_its_decoder(world: Path, small: Path) -> None:
    class Fake:
        vae = load_vae(world / "generator")
        device = CPU
        small_decoder: SmallDecoder | None = None

    fake: Any = Fake()
    assert attach_small_decoder(tiny_recipe(world, Path("unused")), fake) == {}
    assert fake.small_decoder is None
    found = attach_small_decoder(recipe_of(world, small), fake)
    assert list(found) == ["small decoder"]
    assert fake.small_decoder.config.widths == (32, 24, 8)


def test_another_vae_is_refused_before_the_run(world: Path, small: Path) -> None:
    assert check_run(recipe_of(world, small), CPU).mistakes == []
    vae = load_vae(world / "generator")
    vae.decoder.conv_out.bias.data.add_(0.1)
    other = small.with_name("other.safetensors")
    decoder = SmallDecoder(SmallDecoderConfig())
    write_small_decoder(other, decoder, fingerprint=vae_fingerprint(vae), command="a command")
    (refused,) = check_run(recipe_of(world, other), CPU).mistakes
    assert "distilled from another VAE" in refused
    recipe = tiny_recipe(world, Path("unused"), "train.decoder=small")
    (refused,) = check_run(recipe, CPU).mistakes
    assert "no small decoder for this VAE" in refused


def test_a_generator_without_one_refuses_to_use_it(world: Path) -> None:
    generator = load_generator(world / "generator", text_encoder=False)
    with pytest.raises(GeneratorError, match="has no small decoder"):
        generator.decode(torch.zeros(1, 16, 1, 2, 2), by="small")


def test_true_frames_with_the_gradient_of_the_small_decoder(world: Path) -> None:
    generator = load_generator(world / "generator", text_encoder=False)
    torch.manual_seed(0)
    small = SmallDecoder(SmallDecoderConfig(widths=(32, 24, 8), blocks=(1, 1, 1)))
    generator.small_decoder = small.requires_grad_(False)
    x = torch.randn(1, 16, 2, 2, 2).requires_grad_()
    window = slice(1, 5)
    shown = generator.decode(x, window, by="small-gradient", detach_context=True)
    assert torch.equal(shown, generator.decode(x, window))
    weights = torch.randn(shown.shape)
    (found,) = torch.autograd.grad((shown * weights).sum(), x)
    near = decode_small(small, x, window, detach_context=True)
    (expected,) = torch.autograd.grad((near * weights).sum(), x)
    assert expected.any()
    torch.testing.assert_close(found, expected)
