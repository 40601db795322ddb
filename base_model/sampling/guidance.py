"""Classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598), with an optional gradient."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from base_model.errors import GeneratorError
from base_model.generator import Condition, Generator, GuidedCondition

NegativeBranch = Literal["detached", "joint", "none"]
"""`detached`: the negative branch runs without gradient (half the memory), and the derivative by
the positive branch is the guidance scale at every noise level. `joint`: both branches in one batch,
with gradient through both, as in the published script. `none`: the positive branch alone, whatever
the guidance."""

Interval = tuple[float, float]
"""Lowest and highest sigma, in [0, 1]."""


@dataclass(frozen=True)
class Guidance:
    """How the two branches become one velocity, at each noise level.

    Attributes:
        scale: gamma; 1 runs the positive branch alone.
        rescale: phi in [0, 1], the share of the result that is rescaled, clip by clip, to the
            standard deviation of the positive branch, because strong guidance increases contrast
            (Lin et al. 2023, arXiv:2305.08891, section 3.4). 0 leaves the result unchanged.
        interval: Noise levels with guidance (Kynkäänniemi et al. 2024, arXiv:2404.07724): low <=
            sigma <= high, both ends included, compared in float32, the precision of the tables. At
            other levels the positive branch runs alone. None = all levels.

    Raises:
        GeneratorError: The interval is not within [0, 1], or its ends are swapped.
    """

    scale: float = 1.0
    rescale: float = 0.0
    interval: Interval | None = None

    def __post_init__(self) -> None:
        if self.interval is not None and not 0.0 <= self.interval[0] <= self.interval[1] <= 1.0:
            low, high = self.interval
            raise GeneratorError(
                f"The interval of guidance must be two noise levels, 0 <= low <= high <= 1, got "
                f"{low:g} and {high:g}."
            )

    def applies(self, sigma: Tensor | float) -> Tensor:
        """Say at which noise levels the negative branch takes part.

        Args:
            sigma: A number or a tensor.

        Returns:
            Booleans of the shape of `sigma`, on the CPU.
        """
        levels = torch.as_tensor(sigma).to("cpu", torch.float32)
        if self.scale == 1.0:
            return torch.zeros_like(levels, dtype=torch.bool)
        if self.interval is None:
            return torch.ones_like(levels, dtype=torch.bool)
        low, high = torch.tensor(self.interval, dtype=torch.float32)
        return (low <= levels) & (levels <= high)


def guided_velocity(
    generator: Generator,
    latents: Tensor,
    sigma: Tensor | float,
    condition: GuidedCondition,
    guidance: Guidance,
    negative: NegativeBranch,
) -> Tensor:
    """Return `v_negative + scale * (v_positive - v_negative)`, with its contrast rescaled.

    Samples whose noise level lies outside the guidance's interval get `v_positive`. `detached` and
    `joint` differ in the gradient, not in the value.

    Args:
        generator: Generator.
        latents: `(b, 16, t, h/8, w/8)`.
        sigma: Noise level: a number, a scalar tensor or `(b,)`.
        condition: Both branches.
        guidance: Scale, rescale and interval.
        negative: Treatment of the negative branch.

    Returns:
        Velocity, shape of `latents`, float32.

    Raises:
        GeneratorError: `negative` is none of the three.
    """
    if negative not in get_args(NegativeBranch):
        raise GeneratorError(
            f"The negative branch must be detached, joint or none, got {negative!r}."
        )
    if negative == "none" or guidance.scale == 1:
        return generator.velocity(latents, sigma, condition.positive)
    if guidance.interval is not None:
        applies = guidance.applies(sigma)
        if not applies.all():
            rows = applies.nonzero().flatten().to(latents.device) if applies.any() else None
            return _partly_guided(generator, latents, sigma, condition, guidance, negative, rows)
    if negative == "joint":
        v_negative, v_positive = both_branches(generator, latents, sigma, condition)
    else:
        with torch.no_grad():
            v_negative = generator.velocity(latents, sigma, condition.negative)
        v_positive = generator.velocity(latents, sigma, condition.positive)
    return mixed_branches(v_negative, v_positive, guidance)


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


def mixed_branches(v_negative: Tensor, v_positive: Tensor, guidance: Guidance) -> Tensor:
    """Combine the velocities of both branches, at noise levels where the guidance applies.

    Args:
        v_negative: `(b, ...)`.
        v_positive: `(b, ...)`.
        guidance: Its scale and rescale.

    Returns:
        `(b, ...)`, differentiable in both.
    """
    v = v_negative + guidance.scale * (v_positive - v_negative)
    if guidance.rescale == 0.0:
        return v
    ratio = v_positive.flatten(1).std(dim=1) / v.flatten(1).std(dim=1)
    return v * (1.0 + guidance.rescale * (ratio - 1.0)).view(-1, *[1] * (v.ndim - 1))


def without_negative(v_positive: Tensor, guidance: Guidance) -> Tensor:
    """Return the velocity outside the interval, where a negative branch would be detached.

    The value is that of the positive branch. Its derivative is multiplied by the scale, which is
    the derivative inside the interval: one division by the scale then gives every step of a chain
    the derivative of its positive branch.

    Args:
        v_positive: `(b, ...)`.
        guidance: Its scale.
    """
    if not v_positive.requires_grad:
        return v_positive
    value = v_positive.detach()
    return value + guidance.scale * (v_positive - value)


def _partly_guided(
    generator: Generator,
    latents: Tensor,
    sigma: Tensor | float,
    condition: GuidedCondition,
    guidance: Guidance,
    negative: NegativeBranch,
    rows: Tensor | None,
) -> Tensor:
    """Return the velocity of samples of which some, or none, lie in the interval.

    Args:
        generator: Generator.
        latents: `(b, 16, t, h/8, w/8)`.
        sigma: Noise level; `(b,)` if there are rows.
        condition: Both branches.
        guidance: Scale, rescale and interval.
        negative: `joint` or `detached`.
        rows: `(n,)`, indices of the samples in the interval; None for none.
    """
    batch = latents.shape[0]
    if rows is None:
        v_positive = generator.velocity(latents, sigma, condition.positive)
        return v_positive if negative == "joint" else without_negative(v_positive, guidance)
    assert isinstance(sigma, Tensor)
    few, levels = latents[rows], sigma[rows.to(sigma.device)]
    of_rows = _rows(condition.negative, rows, batch)
    if negative == "joint":
        v_negative, v_positive = generator.velocity(
            torch.cat([few, latents]),
            torch.cat([levels, sigma]),
            _stack(of_rows, condition.positive, len(rows), batch),
        ).split([len(rows), batch])
        v = v_positive
    else:
        with torch.no_grad():
            v_negative = generator.velocity(few, levels, of_rows)
        v_positive = generator.velocity(latents, sigma, condition.positive)
        v = without_negative(v_positive, guidance)
    return v.index_copy(0, rows, mixed_branches(v_negative, v_positive[rows], guidance))


def _rows(condition: Condition, rows: Tensor, batch: int) -> Condition:
    """Return the condition of some of b samples."""

    def chosen(tensor: Tensor | None) -> Tensor | None:
        if tensor is None or len(tensor) != batch:  # one for all samples
            return tensor
        return tensor[rows.to(tensor.device)]

    text = chosen(condition.text)
    assert text is not None
    return Condition(text, chosen(condition.inpaint_latents), chosen(condition.control_latents))


def _stack(
    first: Condition, second: Condition, batch: int, second_batch: int | None = None
) -> Condition:
    """Stack the conditions of two batches, which are equally large unless both sizes are given."""
    sizes = (batch, batch if second_batch is None else second_batch)

    def extra(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        if a is None and b is None:
            return None
        a = torch.zeros_like(b[:1]) if a is None and b is not None else a
        b = torch.zeros_like(a[:1]) if b is None and a is not None else b
        assert a is not None
        assert b is not None
        pairs = zip((a, b), sizes, strict=True)
        return torch.cat([part.expand(size, -1, -1, -1, -1) for part, size in pairs])

    texts = zip((first.text, second.text), sizes, strict=True)
    return Condition(
        torch.cat([text.expand(size, -1, -1) for text, size in texts]),
        extra(first.inpaint_latents, second.inpaint_latents),
        extra(first.control_latents, second.control_latents),
    )
