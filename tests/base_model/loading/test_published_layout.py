"""Published checkpoints open as they are: their config keys, files and names, from outside."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLMagvit, DiffusionPipeline, EasyAnimateTransformer3DModel
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from base_model.convert.conversion import convert_checkpoint
from base_model.core.kinds import kind_of
from base_model.errors import GeneratorError
from base_model.generator import load_generator
from base_model.loading.checkpoint import empty_model
from base_model.loading.model_configs import transformer_arguments_of, vae_arguments_of
from base_model.sampling.guidance import Guidance
from base_model.sampling.sample import euler_sample
from base_model.sampling.sigmas import sigma_table
from tests.goldens import WEIGHT_FILE, load_golden, relative
from tests.published_layout import (
    CHANNELS,
    GOLDENS,
    Kind,
    Size,
    published,
    text_encoder_golden,
    transformer_config,
    write_published,
)

HERE = Path("config.json")
# Of the inpaint checkpoints, from the hub's metadata.
WEIGHTS: dict[Size, int] = {"7b": 6_814_670_912, "12b": 11_799_265_856}


@pytest.mark.parametrize("kind", CHANNELS)
@pytest.mark.parametrize("size", WEIGHTS)
def test_full_size_transformers(size: Size, kind: Kind) -> None:
    arguments = transformer_arguments_of(
        HERE, transformer_config(size, kind), EasyAnimateTransformer3DModel
    )
    model = empty_model(EasyAnimateTransformer3DModel, arguments)
    expected = WEIGHTS[size] + (CHANNELS[kind] - 33) * 3072 * 2 * 2
    assert sum(parameter.numel() for parameter in model.parameters()) == expected
    text_stream = [block.attn1.to_add_out is not None for block in model.transformer_blocks]
    assert (sum(text_stream), len(text_stream)) == {"7b": (18, 36), "12b": (48, 48)}[size]


def test_full_size_vae() -> None:
    arguments = vae_arguments_of(HERE, published("vae"), AutoencoderKLMagvit)
    model = empty_model(AutoencoderKLMagvit, arguments)
    assert sum(parameter.numel() for parameter in model.parameters()) == 244_375_507
    assert arguments["scaling_factor"] == 0.7125


def test_full_size_text_encoder(tmp_path: Path) -> None:
    """The flat config; the published index says 730 tensors of 16,582,751,232 bytes in bfloat16."""
    (tmp_path / "config.json").write_text(json.dumps(published("text_encoder")))
    with torch.device("meta"):
        model = Qwen2VLForConditionalGeneration(Qwen2VLConfig.from_pretrained(tmp_path))
    assert len(model.state_dict()) == 730
    assert 2 * sum(parameter.numel() for parameter in model.parameters()) == 16_582_751_232


def test_the_reconstructed_diffusers_config() -> None:
    config = published("transformer-12b-diffusers")
    ours = transformer_arguments_of(HERE, config, EasyAnimateTransformer3DModel)
    assert ours == transformer_arguments_of(
        HERE, transformer_config("12b", "text"), EasyAnimateTransformer3DModel
    )
    # What the README says of it: the size that the hub lists.
    assert len(json.dumps(config, indent=2) + "\n") == 973


@pytest.mark.parametrize("kind", CHANNELS)
def test_a_published_checkpoint_loads_encodes_and_samples(tmp_path: Path, kind: Kind) -> None:
    generator = load_generator(write_published(tmp_path / "checkpoint", kind))
    assert generator.kind.channels == CHANNELS[kind]
    prompts = json.loads(text_encoder_golden().metadata["prompts"])
    text = generator.encode_prompts([prompts[0], prompts[1]], ["", ""])
    for i in range(2):
        expected = text_encoder_golden().tensors[f"out.{i}"]
        assert (text.positive[i] - expected).abs().max() < 1e-5  # transformers 4.46's
    golden = load_golden(GOLDENS[kind]).tensors
    velocity = generator.transformer(
        golden["in.latents"],
        golden["in.timestep"],
        encoder_hidden_states=golden["in.text"],
        inpaint_latents=golden.get("in.inpaint_latents"),
        control_latents=golden.get("in.control_latents"),
        return_dict=False,
    )[0]
    assert relative(velocity, golden["out.velocity"]) < 1e-6  # the original class's
    noise = generator.initial_noise(generator.latent_shape(2, 5, 32, 32), [0, 1])
    latents = euler_sample(
        generator, generator.condition(text), noise, sigma_table(2), Guidance(5.0)
    )
    assert generator.decode(latents).shape == (2, 5, 3, 32, 32)


def test_weights_that_git_did_not_fetch(tmp_path: Path) -> None:
    folder = write_published(tmp_path / "cloned", "text")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 977502632\n"
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_text(pointer)
    with pytest.raises(GeneratorError, match=r"Git LFS pointer.*`git lfs pull`"):
        load_generator(folder)


def test_the_fixtures_are_not_of_this_code(tmp_path: Path) -> None:
    """A key that the class written today has not got is in the fixture, and still in the folder."""
    taken = set(empty_model(AutoencoderKLMagvit, {}).config)
    more = {key for key in published("vae") if not key.startswith("_")} - taken
    assert {"force_upcast", "sample_size", "norm_type", "mini_batch_encoder"} <= more
    folder = write_published(tmp_path / "checkpoint", "text")
    config = json.loads((folder / "vae" / "config.json").read_text())
    assert more <= config.keys()
    shutil.rmtree(folder)


@pytest.mark.parametrize("kind", CHANNELS)
def test_converted_it_opens_in_stock_diffusers_and_comes_back_to_the_byte(
    tmp_path: Path, kind: Kind
) -> None:
    source = write_published(tmp_path / "published", kind)
    convert_checkpoint(source, tmp_path / "diffusers", "diffusers")
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "diffusers", torch_dtype=torch.float32)
    assert (
        type(pipeline).__name__ == kind_of(CHANNELS[kind]).pipeline
    )  # whatever the index said before
    assert pipeline.vae.config.cache_mag_vae is True
    done = convert_checkpoint(tmp_path / "diffusers", tmp_path / "back", "original")
    assert done.notes == ()
    for path in sorted(p.relative_to(source) for p in source.rglob("*.*") if p.is_file()):
        if path.name != WEIGHT_FILE:  # the golden files' own headers have no metadata
            assert (tmp_path / "back" / path).read_bytes() == (source / path).read_bytes(), path
