"""Classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598), with an optional gradient."""

from typing import Literal

import torch
from torch import Tensor

from base_model.errors import GeneratorError
from base_model.generator import Condition, Generator, GuidedCondition

NegativeBranch = Literal["detached", "joint", "none"]
"""`detached`: the negative branch runs without gradient (half the memory). `joint`: both branches
in one batch, with gradient through both, as in the published script. `none`: the positive branch
alone, whatever the scale."""


def guided_velocity(
    generator: Generator,
    latents: Tensor,
    sigma: Tensor | float,
    condition: GuidedCondition,
    guidance_scale: float,
    negative: NegativeBranch,
    rescale: float = 0.0,
) -> Tensor:
    """Return `v_negative + guidance_scale * (v_positive - v_negative)`, with its contrast rescaled.

    `detached` and `joint` differ in the gradient, not in the value.

    Args:
        generator: Generator.
        latents: `(b, 16, t, h/8, w/8)`.
        sigma: Noise level: a number, a scalar tensor or `(b,)`.
        condition: Both branches.
        guidance_scale: Guidance scale; 1 runs the positive branch alone.
        negative: Treatment of the negative branch.
        rescale: See `mixed_branches`.

    Returns:
        Velocity, shape of `latents`, float32.

    Raises:
        GeneratorError: `negative` is none of the three.
    """
    if negative == "none" or guidance_scale == 1:
        return generator.velocity(latents, sigma, condition.positive)
    if negative == "joint":
        v_negative, v_positive = both_branches(generator, latents, sigma, condition)
    elif negative == "detached":
        with torch.no_grad():
            v_negative = generator.velocity(latents, sigma, condition.negative)
        v_positive = generator.velocity(latents, sigma, condition.positive)
    else:
        raise GeneratorError(
            f"The negative branch must be detached, joint or none, got {negative!r}."
        )
    return mixed_branches(v_negative, v_positive, guidance_scale, rescale)


def both_branches(
    generator: Generator, latents: Tensor, sigma: Tensor | float, condition: GuidedCondition
) -> tuple[Tensor, Tensor]:
    """Return the velocities of the negative and the positive branch from one call.

    Args:
        generator: Generator.
        latents: `(b, 16, t, h/8, w/8)`.
        sigma: Noise level: a number, a scalar tensor or `(b,)`.
        condition: Both branches.

    Returns:
        Two velocities, each of the shape of `latents`, float32.
    """
    both = _stack(condition.negative, condition.positive, latents.shape[0])
    if isinstance(sigma, Tensor) and sigma.dim():
        sigma = sigma.repeat(2)
    v_negative, v_positive = generator.velocity(latents.repeat(2, 1, 1, 1, 1), sigma, both).chunk(2)
    return v_negative, v_positive


def mixed_branches(
    v_negative: Tensor, v_positive: Tensor, guidance_scale: float, rescale: float = 0.0
) -> Tensor:
    """Combine the velocities of both branches.

    Args:
        v_negative: `(b, ...)`.
        v_positive: `(b, ...)`.
        guidance_scale: Guidance scale.
        rescale: phi in [0, 1], the share of the result that is rescaled, clip by clip, to the
            standard deviation of the positive branch, because strong guidance increases contrast
            (Lin et al. 2023, arXiv:2305.08891, section 3.4). 0 leaves the result unchanged.

    Returns:
        `(b, ...)`, differentiable in both.
    """
    v = v_negative + guidance_scale * (v_positive - v_negative)
    if rescale == 0.0:
        return v
    ratio = v_positive.flatten(1).std(dim=1) / v.flatten(1).std(dim=1)
    return v * (1.0 + rescale * (ratio - 1.0)).view(-1, *[1] * (v.ndim - 1))


def _stack(first: Condition, second: Condition, batch: int) -> Condition:
    """Stack two conditions to one of twice the batch, with `first` in the first half."""

    def text(condition: Condition) -> Tensor:
        return condition.text.expand(batch, -1, -1)

    def extra(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        if a is None and b is None:
            return None
        a = torch.zeros_like(b) if a is None and b is not None else a
        b = torch.zeros_like(a) if b is None and a is not None else b
        assert a is not None
        assert b is not None
        return torch.cat([part.expand(batch, -1, -1, -1, -1) for part in (a, b)])

    return Condition(
        torch.cat([text(first), text(second)]),
        extra(first.inpaint_latents, second.inpaint_latents),
        extra(first.control_latents, second.control_latents),
    )
