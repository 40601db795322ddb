"""Parts of a run: what is loaded, and from which keys of the recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from base_model.sampling.guidance import Guidance
from reward_tuning.errors import TuningError
from reward_tuning.lora.adapter import LoraSpec, attach, lora_weights
from reward_tuning.lora.export import export_adapter
from reward_tuning.progress import silent
from reward_tuning.tuning.parts import RunParts, load_parts
from reward_tuning.tuning.replay_clips import origin
from reward_tuning.tuning.replay_sources import ReplaySource
from reward_tuning.tuning.sigma_tables import evaluation_sigmas
from tests.reward_tuning.tiny_run import HELD_OUT, tiny_recipe, write_world
from tests.reward_tuning.tiny_transformer import tiny_transformer

DEVICE = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


def test_only_the_prompts_of_the_run_are_encoded(world: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(world, tmp_path)
    parts = load_parts(recipe, DEVICE, 2, silent)
    assert len(parts.sampler.states) == 2 + len(HELD_OUT) + 1
    assert parts.sampler.generator.prompt_encoder is None


def test_the_vae_has_the_dtype_of_the_recipe(world: Path, tmp_path: Path) -> None:
    for value, expected in (("null", torch.float32), ("bfloat16", torch.bfloat16)):
        recipe = tiny_recipe(world, tmp_path, f"generator.vae_dtype={value}")
        generator = load_parts(recipe, DEVICE, 2, silent).sampler.generator
        assert {p.dtype for p in generator.vae.parameters()} == {expected}
        assert generator.dtype == torch.float32


def test_training_and_its_clips_have_intervals_of_their_own(world: Path, tmp_path: Path) -> None:
    intervals = ("sampling.guidance_steps=[0.3,1]", "evaluation.guidance_steps=[0.2,0.9]")
    recipe = tiny_recipe(world, tmp_path, *intervals, "sampling.guidance_rescale=0.5")
    sampler = load_parts(recipe, DEVICE, 2, silent).sampler
    assert sampler.guidance == Guidance(3.0, 0.5, (0.3, 1.0))
    assert sampler.latents_guidance == Guidance(3.0, 0.5, (0.2, 0.9))
    sources = [ReplaySource("a cat")]
    kept = [
        origin(one, sources, evaluation_sigmas(one), "hash")
        for one in (recipe, tiny_recipe(world, tmp_path, "sampling.guidance_rescale=0.5"))
    ]
    assert kept[0] != kept[1]  # clips of the base would be others


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA that does something."""
    transformer = tiny_transformer()
    draw = torch.Generator().manual_seed(0)
    for parameter in attach(transformer, LoraSpec(3, 3.0, "attention+mlp"), seed=0):
        with torch.no_grad():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=draw))
    file = tmp_path_factory.mktemp("frozen") / "a.safetensors"
    return export_adapter(lora_weights(transformer), file, "diffusers")


def test_training_is_on_the_frozen_adapter_and_clips_are_shown_without_it(
    world: Path, tmp_path: Path, frozen: Path
) -> None:
    given = f"generator.adapter={frozen}"
    plain = load_parts(tiny_recipe(world, tmp_path), DEVICE, 2, silent)
    kept = load_parts(tiny_recipe(world, tmp_path, given), DEVICE, 2, silent)
    off = load_parts(
        tiny_recipe(world, tmp_path, given, "evaluation.adapter=false"), DEVICE, 2, silent
    )
    prompts, seeds, sigmas = HELD_OUT[:2], (1, 2), plain.sigmas
    shown = [parts.sampler.latents(prompts, seeds, sigmas) for parts in (plain, kept, off)]
    assert torch.equal(shown[2], shown[0])
    assert not torch.allclose(shown[1], shown[0], atol=0.01)

    def velocity(parts: RunParts) -> Tensor:
        sampler = parts.sampler
        with torch.no_grad():
            return sampler.velocity(sampler.condition(prompts), sigmas)(sampler.noise(seeds), 1)

    assert torch.equal(velocity(kept), velocity(off))
    assert not torch.allclose(velocity(off), velocity(plain), atol=0.01)
    assert off.trained.state().keys() == plain.trained.state().keys()  # the trained one alone
    more = off.fingerprints.keys() - plain.fingerprints.keys()
    assert more == {"generator.adapter"}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("evaluation.adapter=false",), "there is no generator.adapter to go without"),
        (
            (
                "evaluation.adapter=false",
                "generator.adapter={}",
                "train.replay={every: 2, weight: 1.0}",
            ),
            "train.replay: .*its clips those of the one without",
        ),
        (("generator.adapter={}.none",), "generator.adapter: got .*or a shipped one"),
    ],
)
def test_a_frozen_adapter_that_cannot_be_used_is_named(
    world: Path, tmp_path: Path, frozen: Path, overrides: tuple[str, ...], said: str
) -> None:
    given = (text.replace("={}", f"={frozen}") for text in overrides)
    with pytest.raises(TuningError, match=said):
        tiny_recipe(world, tmp_path, *given)
