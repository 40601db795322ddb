"""The golden 7B-style generator with the golden LoRA on it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from base_model.generator import Condition, Generator, GuidedCondition, load_generator
from base_model.guidance import NegativeBranch, guided_velocity
from reward_tuning.engine import VelocityFn
from reward_tuning.exports import import_adapter
from reward_tuning.lora import attach_weights
from tests.goldens import FOLDER, load_golden, write_checkpoint

LORA = FOLDER / "lora_original_layout.safetensors"
GUIDANCE_SCALE = 6.0


def golden_generator(folder: Path, dtype: torch.dtype = torch.float32) -> Generator:
    """The golden weights, read from a checkpoint in the original layout written to `folder`."""
    return load_generator(write_checkpoint(folder), dtype=dtype, text_encoder=False)


def with_golden_lora(generator: Generator) -> Generator:
    attach_weights(generator.transformer, import_adapter(LORA, generator.transformer))
    return generator


def golden_condition() -> GuidedCondition:
    tensors = load_golden("sampling_7b_style").tensors
    return GuidedCondition(Condition(tensors["in.text"]), Condition(tensors["in.negative_text"]))


def golden_velocity(generator: Generator, sigmas: Tensor, negative: NegativeBranch) -> VelocityFn:
    """The guided velocity as the trainer will give it to the engine."""
    condition = golden_condition()

    def velocity(x: Tensor, i: int) -> Tensor:
        return guided_velocity(generator, x, sigmas[i], condition, GUIDANCE_SCALE, negative)

    return velocity
