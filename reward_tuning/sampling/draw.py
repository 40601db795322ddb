"""One clip from a prompt, a seed and a condition, for `reward-tuning generate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from base_model.generator import Generator
from base_model.networks.attention_backend import Attention
from base_model.networks.tiled_decode import Tiling, decode_tiled
from base_model.sampling.guidance import Guidance
from base_model.sampling.sample import euler_sample, start_state, start_step
from base_model.sampling.sigmas import sigma_table
from reward_tuning.inputs.encoded_condition import EncodedCondition
from reward_tuning.sampling.cheap_steps import CheapSteps, cheaply
from reward_tuning.sampling.step_cache import step_cache


@dataclass(frozen=True)
class SampledClip:
    """Result of sampling one clip.

    Attributes:
        latents: `(1, 16, t, h/8, w/8)`, scaled.
        steps: Number of steps that ran.
        full_steps: Number of steps that ran every block of the transformer.
    """

    latents: Tensor
    steps: int
    full_steps: int


def sample_clip(
    generator: Generator,
    prompt: str,
    negative_prompt: str,
    *,
    seed: int,
    size: tuple[int, int, int],
    steps: int,
    guidance: Guidance,
    condition: EncodedCondition = EncodedCondition(),  # noqa: B008  # frozen
    strength: float = 1.0,
    attention: Attention = "auto",
    cheap: CheapSteps = CheapSteps(),  # noqa: B008  # frozen
    on_step: Callable[[int], None] = lambda step: None,
) -> SampledClip:
    """Sample the latents of one clip.

    12 parameters: each is an option of `reward-tuning generate`.

    Args:
        generator: The generator with its text encoder.
        prompt: Prompt of the clip.
        negative_prompt: Text of the negative guidance branch.
        seed: Seed of the noise.
        size: Frames, height, width.
        steps: Euler steps of the whole table.
        guidance: Scale, rescale and interval.
        condition: Condition besides the text.
        strength: Share of the steps that run; below 1 they start from the condition's noised video.
        attention: Backend of the attention (`base_model.networks.attention_backend`).
        cheap: How the steps are computed. A cache starts empty, so that a clip does not depend on
            the one before it.
        on_step: Called after each step with its index in the whole table.

    Raises:
        TuningError: The cache cannot work here.
    """
    text = generator.encode_prompts([prompt], [negative_prompt])
    channels = None if condition.channels is None else condition.channels[None]
    state = generator.initial_noise(generator.latent_shape(1, *size), [seed])
    first = start_step(steps, strength)
    sigmas = sigma_table(steps)[first:]
    if condition.start is not None:
        state = start_state(condition.start[None], state, float(sigmas[0]))
    run = len(sigmas) - 1
    with ExitStack() as stack:
        cache = None
        if cheap.cache is not None:
            cache = stack.enter_context(step_cache(cheap.cache, generator.transformer, run))

        @contextmanager
        def around_step() -> Iterator[None]:
            with nullcontext() if cache is None else cache.call(), cheaply(cheap, generator.device):
                yield

        latents = euler_sample(
            generator,
            generator.conditioned(text, channels),
            state,
            sigmas,
            guidance,
            on_step=lambda step, _: on_step(first + step),
            attention=attention,
            around_step=around_step,
        )
    return SampledClip(latents, run, run if cache is None else cache.full_calls)


@torch.no_grad()
def decoded(generator: Generator, latents: Tensor, tiling: Tiling | None = None) -> Tensor:
    """Decode sampled clips to frames, `(b, f, 3, H, W)` in [0, 1].

    Args:
        generator: The generator, whose VAE decodes.
        latents: `(b, 16, t, h/8, w/8)`, scaled.
        tiling: Decode tile by tile; None decodes whole frames. Tiles take the norms' statistics
            from thinned latents, because those of the whole picture need as much memory as an
            untiled decode.
    """
    if tiling is None:
        return generator.decode(latents)
    with generator.resting.vae_for(latents):
        return decode_tiled(generator.vae, latents, tiling=tiling)
