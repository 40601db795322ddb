"""Drift against its formula, written out with adapters attached one after the other."""

from __future__ import annotations

import pytest
import torch

from base_model.generator import load_generator
from reward_tuning.evidence.drift import SIGMAS, relative_drift
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.lora.adapter import LoraSpec, LoraWeights, attach, lora_weights
from reward_tuning.lora.attached import attached, detach
from reward_tuning.sampling.sampler import ClipSampler
from tests.goldens import write_checkpoint

PROMPTS = [Prompt("a ball", "a ball"), Prompt("a cat", "a cat")]


@pytest.fixture(scope="module")
def sampler(tmp_path_factory: pytest.TempPathFactory) -> ClipSampler:
    generator = load_generator(
        write_checkpoint(tmp_path_factory.mktemp("generator")), text_encoder=False
    )
    draw = torch.Generator().manual_seed(5)
    states = {name: torch.randn(6, 48, generator=draw) for name in ("a ball", "a cat", "")}
    return ClipSampler(generator, states, "", 3.0, (5, 16, 16))


@pytest.fixture(scope="module")
def weights(sampler: ClipSampler) -> LoraWeights:
    transformer = sampler.generator.transformer
    draw = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in attach(transformer, LoraSpec(2, 2.0), seed=0):
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=draw))
    found = lora_weights(transformer)
    detach(transformer)
    return found


def test_against_the_formula(sampler: ClipSampler, weights: LoraWeights) -> None:
    generator = sampler.generator
    clips = torch.randn(2, 16, 2, 2, 2, generator=torch.Generator().manual_seed(1))
    with attached(generator.transformer, weights):
        found = relative_drift(sampler, 0.5, clips, PROMPTS, [3, 4])
        assert relative_drift(sampler, 0.0, clips, PROMPTS, [3, 4]) == [0.0, 0.0]
    noise = generator.initial_noise((2, 16, 2, 2, 2), [3, 4])
    for row, prompt in enumerate(PROMPTS):
        expected = 0.0
        for sigma in SIGMAS:
            x = ((1 - sigma) * clips + sigma * noise)[row : row + 1]
            condition = sampler.condition([prompt]).positive
            with torch.no_grad():
                base = generator.velocity(x, sigma, condition)
                with attached(generator.transformer, weights, 0.5):
                    tuned = generator.velocity(x, sigma, condition)
            expected += float((tuned - base).norm() / base.norm()) / len(SIGMAS)
        assert found[row] == pytest.approx(expected, rel=1e-4)
        assert found[row] > 0.01
