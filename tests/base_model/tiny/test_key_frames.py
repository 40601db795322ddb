"""The frame-wise encoding equals the published one on the embedded VAE."""

import random

import torch

from base_model.generator import load_generator
from base_model.networks import magvit
from base_model.tiny.key_frames import encode_key_frames
from base_model.tiny.render import render
from base_model.tiny.scenes import draw_scenes


def test_it_is_the_published_encoding() -> None:
    vae = load_generator("tiny", text_encoder=False).vae
    rng = random.Random(0)
    clips = render(draw_scenes(2, rng), rng)
    found = encode_key_frames(vae, clips)
    assert found.shape == (2, 16, 3, 8, 8)
    expected = magvit.encode(vae, clips) / vae.config.scaling_factor
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    # Only frames 0, 4 and 8 count.
    clips[:, [1, 2, 3, 5, 6, 7]] = 0.0
    assert torch.equal(encode_key_frames(vae, clips), found)
