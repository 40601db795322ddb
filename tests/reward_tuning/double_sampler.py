"""The golden generator in float64 as a sampler, two prompts and four steps for it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from base_model.generator import load_generator
from base_model.sampling.guidance import Guidance
from base_model.sampling.sigmas import sigma_table
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.lora.adapter import LoraSpec, attach
from reward_tuning.sampling.sampler import ClipSampler
from tests.goldens import write_checkpoint

PROMPTS = [Prompt("a long text about a red ball", "a red ball"), Prompt("a cat", "a cat")]
SIGMAS = sigma_table(4).double()


def double_sampler(checkpoint: Path, texts: Iterable[str]) -> ClipSampler:
    """The golden generator in float64 with an adapter that does something."""
    generator = load_generator(checkpoint, dtype=torch.float64, text_encoder=False)
    attach(generator.transformer, LoraSpec(2, 2.0), seed=0)
    generator.transformer.to(torch.float64)
    draw = torch.Generator().manual_seed(5)
    for name, parameter in generator.transformer.named_parameters():
        if "lora_B" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=draw).double()
    states = {text: torch.randn(6, 48, generator=draw).double() for text in (*texts, "bad")}
    return ClipSampler(generator, states, "bad", Guidance(3.0), (5, 16, 16))


@pytest.fixture(scope="module")
def sampler(tmp_path_factory: pytest.TempPathFactory) -> ClipSampler:
    """Of the two prompts."""
    folder = write_checkpoint(tmp_path_factory.mktemp("generator"))
    return double_sampler(folder, [prompt.text for prompt in PROMPTS])
