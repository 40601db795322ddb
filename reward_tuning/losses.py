"""From scores to a loss: a weight and a hinge for each judge."""

from __future__ import annotations

import torch
from torch import Tensor


def reward_loss(
    scores: Tensor,
    *,
    weight: float = 1.0,
    target: float | None = None,
    clip_weights: Tensor | None = None,
) -> Tensor:
    """The loss of one judge.

    Without a target `-weight * mean(scores)`; with one `weight * mean(max(target - scores, 0))`, so
    that a clip at or above the target gives no gradient (LeapAlign, arXiv 2604.15311: HPSv2.1 0.55;
    SRPO, arXiv 2509.06942: 0.7).

    Args:
        scores: `(b,)`, higher is better.
        weight: Of this judge among others.
        target: Where the hinge bends; None for none.
        clip_weights: `(b,)`, a factor of each clip's loss; None for 1.

    Returns:
        A scalar.
    """
    shortfall = -scores if target is None else torch.relu(target - scores)
    if clip_weights is not None:
        shortfall = clip_weights * shortfall
    return weight * shortfall.mean()


def guidance_divisor(guidance_scale: float, negative: str) -> float:
    """What the loss is divided by, so that guidance does not set the size of the gradient.

    With a detached negative branch d(guided velocity)/d(positive branch) is the guidance scale
    itself (FlowBP, arXiv 2606.11075). With both branches in the gradient, as the published script
    has it, and without guidance, nothing is divided.
    """
    return guidance_scale if negative == "detached" else 1.0
