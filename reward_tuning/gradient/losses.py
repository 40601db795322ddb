"""From frames' scores to a clip's, and from clips' scores to a loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def reward_loss(
    scores: Tensor,
    *,
    weight: float = 1.0,
    target: float | None = None,
    mean: float = 0.0,
    std: float = 1.0,
    clip_weights: Tensor | None = None,
) -> Tensor:
    """The loss of one judge.

    Without a target `-weight * mean_b((scores - mean) / std)`; with one `weight *
    mean_b(max(target - scores, 0) / std)`, so that a clip at or above the target gives no gradient
    (LeapAlign, arXiv 2604.15311: HPSv2.1 0.55; SRPO, arXiv 2509.06942: 0.7). The latter is, up to a
    constant, the former with its normalised score capped at `(target - mean) / std`.

    Args:
        scores: `(b,)`, higher is better.
        weight: Of this judge among others.
        target: Where the hinge bends; None for none.
        mean: Score that counts as 0; without effect on the gradient.
        std: Number that scores are divided by.
        clip_weights: `(b,)`, a factor of each clip's loss; None for 1.

    Returns:
        A scalar.
    """
    shortfall = mean - scores if target is None else torch.relu(target - scores)
    if clip_weights is not None:
        shortfall = clip_weights * shortfall
    return weight / std * shortfall.mean()


def soft_min(scores: Tensor, sharpness: float) -> Tensor:
    """A smooth minimum over frames, `-log(mean(exp(-b s))) / b`.

    It lies between the minimum and the mean, and frames that are alike give their own score. Its
    gradient is that of `-logsumexp(-b s) / b`, a weight on each frame that is larger for worse ones
    and adds up to 1.

    Args:
        scores: `(b, f)`.
        sharpness: b above, in units of 1 / score; near 0 the mean, large the minimum.

    Returns:
        `(b,)`.
    """
    frames = scores.shape[1]
    return -(torch.logsumexp(-sharpness * scores, dim=1) - math.log(frames)) / sharpness


def best_mean(scores: Tensor, share: float) -> Tensor:
    """The mean of each clip's best frames: ``max(1, int(f * share))`` of them.

    GenRL's `hpsv3_percentile` with a share of 0.3. The other frames get no gradient.

    Args:
        scores: `(b, f)`.
        share: In (0, 1].

    Returns:
        `(b,)`.
    """
    count = max(1, int(scores.shape[1] * share))
    return scores.topk(count, dim=1).values.mean(dim=1)


def guidance_gain(guidance_scale: float, negative: str) -> float:
    """How much longer a guided velocity's derivative is than that of the positive branch.

    With a detached negative branch d(guided velocity)/d(positive branch) is the guidance scale
    itself. The loss is divided by it, so that guidance does not set the size of the gradient
    (FlowBP, arXiv 2606.11075), and so is what flows on through the states
    (`plan.Plan.over_guidance`). With both branches in the gradient, as the published script has it,
    and without guidance, nothing is divided.
    """
    return guidance_scale if negative == "detached" else 1.0
