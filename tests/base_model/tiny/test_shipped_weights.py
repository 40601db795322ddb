"""The weights that come with the package: they are there, whole, small, and say their origin.

Missing weights fail here: without them nothing of the package runs as its README says.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

import base_model
import rewards
from base_model.files.shipped import shipped_checkpoints
from base_model.generator import Generator, load_generator
from base_model.tiny import configs
from base_model.tiny.measure import all_right, vae_psnr

GENERATOR = Path(base_model.__file__).parent / "weights"
JUDGES = Path(rewards.__file__).parent / "weights"
DELTAS = tuple(
    f"tiny-{kind}/transformer/delta.safetensors" for kind in ("camera", "control", "inpaint")
)
PARTS = (
    "tiny/text_encoder/model.safetensors",
    "tiny/transformer/diffusion_pytorch_model.safetensors",
    "tiny/vae/diffusion_pytorch_model.safetensors",
)
ADAPTER = "adapters/tiny-4-steps.safetensors"
SMALL_DECODER = "small_decoders/tiny.safetensors"


@pytest.fixture(scope="module")
def generator() -> Generator:
    return load_generator("tiny")


def safetensors_files() -> list[Path]:
    files = [*GENERATOR.rglob("*.safetensors"), *JUDGES.rglob("*.safetensors")]
    # Three parts of the generator; two CLIPs, HPS and aesthetics of the judges.
    assert len(files) >= 3 + 4, f"weights are missing; there are {[str(file) for file in files]}"
    return sorted(files)


def test_all_parts_of_the_generator_are_there() -> None:
    assert "tiny" in shipped_checkpoints()
    found = sorted(str(path.relative_to(GENERATOR)) for path in GENERATOR.rglob("*.safetensors"))
    assert found == sorted([*PARTS, *DELTAS, ADAPTER, SMALL_DECODER])


def test_every_file_says_which_command_made_it() -> None:
    for path in safetensors_files():
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        if path == GENERATOR / ADAPTER:  # a LoRA as every run writes it, with its recipe
            assert json.loads(metadata["reward_tuning.recipe"])["student"]["steps"] == 4
            continue
        assert metadata.get("command", "").startswith("reward-tuning pretrain"), path


def test_all_weights_together_are_at_most_48_megabytes() -> None:
    assert safetensors_files()
    files = [path for folder in (GENERATOR, JUDGES) for path in folder.rglob("*")]
    size = sum(path.stat().st_size for path in files if path.is_file())
    assert 1e6 < size <= 48e6


def test_every_number_is_finite_and_in_half_precision() -> None:
    for path in (GENERATOR / part for part in PARTS):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(name)
                assert tensor.dtype in (torch.float16, torch.bfloat16), name
                assert tensor.isfinite().all(), name


def test_they_are_of_the_architecture_in_the_configs(generator: Generator) -> None:
    for module, config in (
        (generator.transformer, configs.TRANSFORMER),
        (generator.vae, configs.VAE),
    ):
        for key, value in config.items():
            if key != "scaling_factor":
                shipped = module.config[key]
                assert shipped == (tuple(value) if isinstance(shipped, tuple) else value), key
    scale = generator.vae.config.scaling_factor
    assert 0.01 < scale < 10
    assert scale != 1.0  # set from the latents' deviation
    assert generator.prompt_encoder is not None
    assert generator.prompt_encoder.max_tokens == configs.TEXT_LENGTH
    assert generator.prompt_encoder.width == configs.TEXT_WIDTH


def test_the_vae_reconstructs_what_it_has_never_seen(generator: Generator) -> None:
    """The bar of the generator, on few clips; `benchmarks/embedded.py` measures it on many."""
    assert vae_psnr(generator, 8) >= 32.0


@pytest.mark.slow
def test_it_shows_what_it_is_asked_for_in_both_languages(generator: Generator) -> None:
    """16 held-out scenes a language at the demo's 16 steps; measured in docs/log/2026-11.md."""
    for shares in all_right(generator, 16, steps=16).values():
        # All right has a standard error of 0.12 here.
        assert 0.2 <= shares["all_right"] <= 0.85
        for name in ("colour", "background", "size", "motion"):
            assert shares[name] >= 0.85, name


def test_nothing_of_it_is_left_at_its_start(generator: Generator) -> None:
    """Past taps of the decoder start at zero: a VAE that never saw clips still has them there."""
    past = [
        module.weight[:, :, :-1]
        for module in generator.vae.decoder.modules()
        if isinstance(module, nn.Conv3d) and module.weight.shape[2] > 1
    ]
    assert past
    assert all(taps.any() for taps in past)
