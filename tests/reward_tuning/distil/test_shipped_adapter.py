"""The shipped LoRA of four steps: by name, in four model calls, without guidance."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from base_model.generator import Generator, load_generator
from base_model.sampling.guidance import Guidance
from base_model.sampling.sample import euler_sample
from base_model.sampling.sigmas import sigma_table
from base_model.tiny.oracle import judge as oracle
from reward_tuning.evidence.adapters import adapter_path, base_in_header
from reward_tuning.inputs.prompts import read_prompts
from reward_tuning.lora.attached import attached
from reward_tuning.lora.export import import_adapter
from reward_tuning.schema.locate import (
    ADAPTERS,
    adapter_place,
    locate_adapter,
    prompt_path,
    shipped_adapters,
)
from rewards.loading import load_reward

NAME, CLIPS = "tiny-4-steps", 12


@pytest.fixture(scope="module")
def generator() -> Generator:
    return load_generator("tiny")


def test_its_name_is_found_wherever_a_lora_is_named(tmp_path: Path) -> None:
    assert NAME in shipped_adapters()
    assert locate_adapter(NAME, tmp_path) == NAME
    assert adapter_place(NAME) == adapter_path(Path(NAME)) == ADAPTERS / f"{NAME}.safetensors"
    assert base_in_header(Path(NAME)) == "tiny"


@pytest.mark.slow
def test_four_calls_do_what_the_base_needs_more_for(generator: Generator) -> None:
    """On held-out prompts, against the base with as many steps, with and without guidance."""
    prompts = read_prompts(prompt_path("tiny/held_out.jsonl"))[:CLIPS]
    texts = [prompt.text for prompt in prompts]
    condition = generator.conditioned(generator.encode_prompts(texts, [""] * CLIPS), None)
    noise = generator.initial_noise(generator.latent_shape(CLIPS, 9, 64, 64), range(CLIPS))
    hps = load_reward("hps", "tiny/hps.safetensors")

    def judged(scale: float) -> tuple[float, float]:
        latents = euler_sample(generator, condition, noise, sigma_table(4), Guidance(scale))
        with torch.no_grad():
            frames: Tensor = generator.decode(latents)
            score = hps(frames, [prompt.reward_text for prompt in prompts])
        return float(score.mean()), float(oracle(frames, texts).all_right.float().mean())

    plain, guided = judged(1.0), judged(5.0)
    weights = import_adapter(adapter_path(Path(NAME)), generator.transformer)
    with attached(generator.transformer, weights):
        distilled = judged(1.0)
    assert distilled[0] > max(plain[0], guided[0]) + 0.01
    assert distilled[1] >= 0.3
