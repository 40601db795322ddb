"""One clip from a prompt, a seed and a condition: what `generate` shows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from base_model.attention_backend import Attention
from base_model.generator import Generator
from base_model.sampling import euler_sample, start_state, start_step
from base_model.sigmas import sigma_table
from reward_tuning.encoded_condition import EncodedCondition


def sample_clip(
    generator: Generator,
    prompt: str,
    negative_prompt: str,
    *,
    seed: int,
    size: tuple[int, int, int],
    steps: int,
    guidance_scale: float,
    guidance_rescale: float = 0.0,
    condition: EncodedCondition = EncodedCondition(),  # noqa: B008  # frozen
    strength: float = 1.0,
    attention: Attention = "auto",
    tell: Callable[[int], None] = lambda step: None,
) -> Tensor:
    """Draw one clip.

    Args:
        generator: With its text encoder.
        prompt: What the clip shows.
        negative_prompt: Of the negative guidance branch.
        seed: Of the noise.
        size: Frames, height, width.
        steps: Euler steps of the whole table.
        guidance_scale: 1 = no guidance.
        guidance_rescale: 0 = off.
        condition: What else it follows.
        strength: Share of the steps that is run; below 1 from the condition's noised start on.
        attention: Backend of the attention (`base_model.attention_backend`).
        tell: Called after each step with its index in the whole table.

    Returns:
        `(f, 3, H, W)` in [0, 1].
    """
    text = generator.encode_prompts([prompt], [negative_prompt])
    channels = None if condition.channels is None else condition.channels[None]
    state = generator.initial_noise(generator.latent_shape(1, *size), [seed])
    first = start_step(steps, strength)
    sigmas = sigma_table(steps)[first:]
    if condition.start is not None:
        state = start_state(condition.start[None], state, float(sigmas[0]))
    latents = euler_sample(
        generator,
        generator.conditioned(text, channels),
        state,
        sigmas,
        guidance_scale,
        on_step=lambda step, _: tell(first + step),
        guidance_rescale=guidance_rescale,
        attention=attention,
    )
    with torch.no_grad():
        return generator.decode(latents)[0]
