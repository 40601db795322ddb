"""One clip from a prompt and a seed: the same as the sampler of a run draws."""

from __future__ import annotations

import pytest
import torch

from base_model.generator import Generator, load_generator
from base_model.networks.tiled_decode import Tiling
from base_model.sampling.guidance import Guidance
from base_model.sampling.sigmas import sigma_table
from reward_tuning.sampling.draw import decoded, sample_clip
from reward_tuning.sampling.sampler import ClipSampler
from tests.reward_tuning.cheap_rollouts import first_block

PROMPT, NEGATIVE = "a red ball rolls left", "blurred"
SIZE = (5, 32, 32)


@pytest.fixture(scope="module")
def generator() -> Generator:
    return load_generator("tiny")


def test_a_clip_is_that_of_a_runs_sampler(generator: Generator) -> None:
    told: list[int] = []
    clip = sample_clip(
        generator,
        PROMPT,
        NEGATIVE,
        seed=5,
        size=SIZE,
        steps=4,
        guidance=Guidance(3.0),
        on_step=told.append,
    )
    assert (clip.steps, clip.full_steps, told) == (4, 4, [0, 1, 2, 3])
    text = generator.encode_prompts([PROMPT], [NEGATIVE])
    states = {PROMPT: text.positive[0], NEGATIVE: text.negative[0]}
    sampler = ClipSampler(generator, states, NEGATIVE, Guidance(3.0), SIZE)
    expected = sampler.latents([PROMPT], [5], sigma_table(4))
    torch.testing.assert_close(clip.latents, expected)


def test_a_cache_is_counted(generator: Generator) -> None:
    clip = sample_clip(
        generator,
        PROMPT,
        NEGATIVE,
        seed=5,
        size=SIZE,
        steps=4,
        guidance=Guidance(3.0),
        cheap=first_block(1e9),
    )
    assert (clip.steps, clip.full_steps) == (4, 1)


def test_decoding_in_tiles_gives_frames_in_range(generator: Generator) -> None:
    shape = generator.latent_shape(1, 1, 64, 64)
    latents = generator.initial_noise(shape, [0])
    whole = decoded(generator, latents)
    tiled = decoded(generator, latents, Tiling())
    assert whole.shape == tiled.shape == (1, 1, 3, 64, 64)
    assert 0.0 <= float(tiled.min()) <= float(tiled.max()) <= 1.0
    assert torch.equal(whole, generator.decode(latents))
