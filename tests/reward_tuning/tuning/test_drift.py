"""The drift of the velocity against its formula."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from base_model.generator import load_generator
from base_model.sampling.guidance import Guidance
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.lora.adapter import LoraSpec, adapter_state, attach
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.seeds import derive_seed
from reward_tuning.tuning.drift import DRIFT_SIGMAS, mean_drift, velocity_drift
from reward_tuning.tuning.evaluation import side
from tests.goldens import write_checkpoint

PROMPTS = {i: Prompt(text, text) for i, text in enumerate(["a ball", "a cat", "a cube"])}


@pytest.fixture(scope="module")
def sampler(tmp_path_factory: pytest.TempPathFactory) -> ClipSampler:
    place = write_checkpoint(tmp_path_factory.mktemp("generator"))
    generator = load_generator(Path(place), text_encoder=False)
    attach(generator.transformer, LoraSpec(2, 2.0), seed=0)
    draw = torch.Generator().manual_seed(5)
    states = {text: torch.randn(6, 48, generator=draw) for text in ("a ball", "a cat", "a cube")}
    states["bad"] = torch.randn(6, 48, generator=draw)
    return ClipSampler(generator, states, "bad", Guidance(3.0), (5, 16, 16))


def test_the_relative_distance_of_the_velocities(sampler: ClipSampler) -> None:
    transformer = sampler.generator.transformer
    draw = torch.Generator().manual_seed(9)
    before = {name: t.clone() for name, t in adapter_state(transformer).items()}
    tuned = {name: 0.3 * torch.randn(t.shape, generator=draw) for name, t in before.items()}
    ends = sampler.noise([1, 2, 3])
    clips = {0: ends[0], 2: ends[2]}
    found = velocity_drift(sampler, tuned, None, clips, PROMPTS, seed=4, batch_size=2)
    for index, clip in clips.items():
        noise = sampler.noise([derive_seed(4, "drift", index)])
        condition = sampler.condition([PROMPTS[index]]).positive
        expected = []
        for sigma in DRIFT_SIGMAS:
            x = (1 - sigma) * clip[None] + sigma * noise
            of = []
            for tensors in (None, tuned):
                with torch.no_grad(), side(transformer, tensors):
                    of.append(sampler.generator.velocity(x, sigma, condition))
            expected.append(float((of[1] - of[0]).norm() / of[0].norm()))
        assert found[index] == pytest.approx(sum(expected) / len(expected), rel=1e-4)
        assert found[index] > 0.01
    alone = velocity_drift(sampler, tuned, None, {2: ends[2]}, PROMPTS, seed=4, batch_size=1)
    assert alone[2] == pytest.approx(found[2], rel=1e-4)
    same = velocity_drift(sampler, tuned, tuned, clips, PROMPTS, seed=4, batch_size=2)
    assert same == {0: 0.0, 2: 0.0}
    after = adapter_state(transformer)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_the_mean_over_processes() -> None:
    assert mean_drift([{0: 1.0, 2: 3.0}, {1: 5.0}]) == 3.0
    assert mean_drift([{}, {}]) is None
