"""Loss of the published base training: squared error without outliers, and a motion term."""

from __future__ import annotations

import torch
from torch import Tensor

MOST_ERROR = 50.0
"""Elements with a larger error count as 0; the published value."""

MOTION_SHARE = 0.25
"""Share of the motion term where it is on; the published value."""


def velocity_loss(
    velocity: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    motion_share: float = 0.0,
    most_error: float = MOST_ERROR,
) -> Tensor:
    """Return the loss of each sample; training takes their mean.

    With d = v - target, the first term is the mean of w d^2 over all elements, where an element
    with |d| > `most_error` is 0 and still counted. The motion term is the mean square of d's
    differences between neighbouring latent frames, neither weighted nor masked:
    (1 - r) first + r motion. A clip of one latent frame has no motion and the first term alone.

    Args:
        velocity: Velocity from the model, `(b, 16, t, h/8, w/8)`, differentiable.
        target: eps - x, same shape.
        weight: w, `(b,)`; None is 1.
        motion_share: r in [0, 1].
        most_error: Largest error that counts, above 0; infinity masks nothing.

    Returns:
        `(b,)`, in the promoted float dtype, at least float32.
    """
    dtype = torch.promote_types(velocity.dtype, torch.float32)
    errors = velocity.to(dtype) - target.to(dtype)
    squares = errors.square() * (errors.detach().abs() <= most_error)
    losses = squares.flatten(1).mean(dim=1)
    if weight is not None:
        losses = losses * weight.to(losses)
    if motion_share == 0.0 or velocity.shape[2] == 1:
        return losses
    motion = errors.diff(dim=2).square().flatten(1).mean(dim=1)
    return (1.0 - motion_share) * losses + motion_share * motion


def norm_limit(step: int, limit: float, *, first_ratio: float = 1.0, decay_steps: int = 1) -> float:
    """Return the gradient norm to which a step is clipped: wide at first, then narrow.

    It falls linearly from `first_ratio` times the limit to the limit, like the published trainer's
    `initial_grad_norm_ratio` and `abnormal_norm_clip_start`.

    Args:
        step: Step, counted from 0.
        limit: Limit from step `decay_steps` on.
        first_ratio: Ratio at step 0, at least 1; 1 keeps the limit constant.
        decay_steps: Steps of the decay, at least 1.
    """
    left = max(0.0, 1.0 - step / decay_steps)
    return limit * (1.0 + (first_ratio - 1.0) * left)
