"""Sample latents from noise: Euler's method on the flow, without gradient."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from base_model.errors import GeneratorError
from base_model.generator import Generator, GuidedCondition
from base_model.networks.attention_backend import Attention, attention_backend
from base_model.sampling.guidance import Guidance, guided_velocity


@torch.no_grad()
def euler_sample(
    generator: Generator,
    condition: GuidedCondition,
    noise: Tensor,
    sigmas: Tensor,
    guidance: Guidance,
    on_step: Callable[[int, Tensor], None] | None = None,
    attention: Attention = "auto",
    around_step: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Tensor:
    """Iterate `x_{i+1} = x_i + (sigma_{i+1} - sigma_i) * v(x_i, sigma_i)` with a float32 state.

    The many parameters are the choices of one sampling, each with a default where callers agree.

    Args:
        generator: Generator.
        condition: Both guidance branches.
        noise: `(b, 16, t, h/8, w/8)`, the state at `sigmas[0]`.
        sigmas: `(n + 1,)`, decreasing; `base_model.sampling.sigmas.sigma_table` for the
            published schedule.
        guidance: Scale, rescale and interval.
        on_step: Callback for progress, called after step i with (i, state).
        attention: See `base_model.networks.attention_backend.attention_backend`.
        around_step: Function that returns a context for the model call of each step.

    Returns:
        The state at `sigmas[-1]`, shape and device of `noise`, float32 (float64 for float64
        weights).

    Raises:
        GeneratorError: The attention backend is unknown or cannot run here.
    """
    sigmas = sigmas.to(generator.device, generator.state_dtype)
    x = noise.to(generator.device, generator.state_dtype)
    with attention_backend(attention, x.to(generator.dtype)):
        for i in range(len(sigmas) - 1):
            with around_step():
                v = guided_velocity(generator, x, sigmas[i], condition, guidance, "joint")
            x = x + (sigmas[i + 1] - sigmas[i]) * v
            if on_step is not None:
                on_step(i, x)
    return x


def start_step(steps: int, strength: float) -> int:
    """Return the step at which sampling from a video begins, as in the published pipelines.

    Args:
        steps: Number of Euler steps in the table, N.
        strength: Share of the steps to run, in (0, 1]; 1 runs all, from pure noise.

    Returns:
        i: sampling runs `sigmas[i:]`, N - i = floor(N * strength) steps.

    Raises:
        GeneratorError: The strength is not in (0, 1], or leaves no step.
    """
    if not 0.0 < strength <= 1.0:
        raise GeneratorError(f"The strength must be above 0 and at most 1, got {strength:g}.")
    run = int(steps * strength)
    if run == 0:
        raise GeneratorError(
            f"Strength {strength:g} of {steps} steps is less than one step. Give a strength of at "
            f"least {1 / steps:.3g}, or more steps."
        )
    return steps - run


def start_state(latents: Tensor, noise: Tensor, sigma: Tensor | float) -> Tensor:
    """Return a clip's latents at a noise level: `(1 - sigma) * latents + sigma * noise`.

    Args:
        latents: `(b, 16, t, h/8, w/8)`, scaled latents of the video to start from.
        noise: Noise of the same shape, which gives the dtype and the device of the result.
        sigma: `sigmas[start_step(...)]`; 1 is pure noise.

    Raises:
        GeneratorError: The shapes differ.
    """
    if latents.shape != noise.shape:
        raise GeneratorError(
            f"The video's latents have shape {tuple(latents.shape)}, the noise "
            f"{tuple(noise.shape)}. The video must have the frames and size of the clip."
        )
    return (1.0 - sigma) * latents.to(noise) + sigma * noise
