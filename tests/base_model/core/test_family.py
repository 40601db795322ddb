"""The record of the family against the embedded checkpoint, which has the published strides."""

import json

import pytest

from base_model.core.family import FAMILY
from base_model.files.shipped import resolve_checkpoint
from base_model.generator import load_generator


def test_the_record_is_the_networks_own() -> None:
    generator = load_generator("tiny", text_encoder=False)
    vae, transformer = generator.vae, generator.transformer
    assert vae.temporal_compression_ratio == FAMILY.time_stride
    assert vae.spatial_compression_ratio == FAMILY.space_stride
    assert vae.config.latent_channels == transformer.config.in_channels == FAMILY.latent_channels
    assert transformer.config.patch_size == FAMILY.patch
    assert FAMILY.transformer_anchor in transformer.state_dict()
    assert FAMILY.vae_anchor in vae.state_dict()
    blocks = [name for name in transformer.state_dict() if name.startswith(FAMILY.block_prefix)]
    assert len({name.split(".")[1] for name in blocks}) == transformer.config.num_layers
    scheduler = resolve_checkpoint("tiny") / "scheduler" / "scheduler_config.json"
    assert json.loads(scheduler.read_text())["num_train_timesteps"] == FAMILY.timesteps


@pytest.mark.parametrize(
    ("frames", "latents", "fitting"), [(1, 1, 1), (4, 1, 1), (5, 2, 5), (8, 2, 5), (49, 13, 49)]
)
def test_frames_and_latents(frames: int, latents: int, fitting: int) -> None:
    assert FAMILY.fitting_frames(frames) == fitting
    assert FAMILY.latent_frames(fitting) == latents


def test_a_token_is_16_pixels_wide() -> None:
    assert FAMILY.token_side == 16
