"""The golden 7B-style generator with the golden LoRA on it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from base_model.generator import Condition, Generator, GuidedCondition, load_generator
from base_model.sampling.guidance import Guidance, NegativeBranch, guided_velocity
from reward_tuning.gradient.kept import VelocityFn
from reward_tuning.lora.adapter import adapter_state, attach_weights
from reward_tuning.lora.export import import_adapter
from reward_tuning.lora.formats.original_file import original_key
from tests.goldens import FOLDER, load_golden, write_checkpoint

LORA = FOLDER / "lora_original_layout.safetensors"
GUIDANCE_SCALE = 6.0
GRADIENTS = load_golden("reward_gradients").tensors
# Of 6 steps those that receive gradient, share that flows on through the model's input, latents
# decoded.
CASES = {
    "tail1": ((5,), 1.0, 1),
    "tail3": ((3, 4, 5), 1.0, 1),
    "tail3_all_frames": ((3, 4, 5), 1.0, 3),
    "full6": ((0, 1, 2, 3, 4, 5), 1.0, 1),
    "stopgrad_0_2_4": ((0, 2, 4), 0.0, 1),
    "uniform_1_3_5": ((1, 3, 5), 1.0, 1),
}


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
        return guided_velocity(
            generator, x, sigmas[i], condition, Guidance(GUIDANCE_SCALE), negative
        )

    return velocity


def golden_reward(frames: Tensor) -> Tensor:
    """Of `(1, f, 3, H, W)`: the linear reward that the golden gradients are of."""
    target = GRADIENTS["in.target"].transpose(1, 2)
    return 100 * (frames * target[:, : frames.shape[1]]).mean()


def expected_gradients(case: str) -> dict[str, Tensor]:
    """The published script's, by original tensor name."""
    prefix = f"grad.{case}."
    return {k.removeprefix(prefix): t for k, t in GRADIENTS.items() if k.startswith(prefix)}


def adapter_gradients(generator: Generator) -> dict[str, Tensor]:
    """What is in `.grad`, by original tensor name; zero where nothing is."""
    gradients = {}
    parameters = dict(generator.transformer.named_parameters())
    for name in adapter_state(generator.transformer):
        path, half, _ = name.rsplit(".", 2)
        key = f"{original_key(path)}.{'lora_down' if half == 'lora_A' else 'lora_up'}.weight"
        gradient = parameters[f"{path}.{half}.default.weight"].grad
        gradients[key] = torch.zeros(()) if gradient is None else gradient
    return gradients
