"""From judges' scores to one gradient at the sampled latents."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from reward_tuning.errors import TuningError

Merge = Literal["sum", "pcgrad"]
"""Ways to merge the gradients of several judges."""

LossesFn = Callable[[Tensor], Sequence[Tensor]]
"""Latents `(b, ...)` -> one scalar loss for each judge, differentiable."""


# --- from scores to a loss


def reward_loss(
    scores: Tensor,
    *,
    weight: float = 1.0,
    target: float | None = None,
    mean: float = 0.0,
    std: float = 1.0,
    clip_weights: Tensor | None = None,
) -> Tensor:
    """Compute the loss of one judge.

    Without a target `-weight * mean_b((scores - mean) / std)`; with one `weight *
    mean_b(max(target - scores, 0) / std)`, so that a clip at or above the target gives no gradient
    (LeapAlign, arXiv 2604.15311: HPSv2.1 0.55; SRPO, arXiv 2509.06942: 0.7). The latter is, up to a
    constant, the former with its normalised score capped at `(target - mean) / std`.

    Args:
        scores: `(b,)`, higher is better.
        weight: Weight of this judge among others.
        target: Score at which the hinge stops rewarding; None for no hinge.
        mean: Score that counts as 0; has no effect on the gradient.
        std: Divisor of the scores.
        clip_weights: `(b,)`, factor of each clip's loss; None for 1.

    Returns:
        A scalar.
    """
    shortfall = _shortfall(scores, target, mean)
    if clip_weights is not None:
        shortfall = clip_weights * shortfall
    return weight / std * shortfall.mean()


def clip_losses(
    scores: Tensor,
    *,
    weight: float = 1.0,
    target: float | None = None,
    mean: float = 0.0,
    std: float = 1.0,
) -> Tensor:
    """Compute the loss of each clip, `(b,)`; their mean is `reward_loss`, with the same keys."""
    return weight / std * _shortfall(scores, target, mean)


def _shortfall(scores: Tensor, target: float | None, mean: float) -> Tensor:
    return mean - scores if target is None else torch.relu(target - scores)


def soft_min(scores: Tensor, sharpness: float) -> Tensor:
    """Compute a smooth minimum over frames, `-log(mean(exp(-b s))) / b`.

    It lies between the minimum and the mean; equal scores give that score. Its gradient puts a
    weight on each frame, larger for worse frames, and the weights add up to 1.

    Args:
        scores: `(b, f)`.
        sharpness: b, in units of 1 / score: near 0 gives the mean, a large value the minimum.

    Returns:
        `(b,)`.
    """
    frames = scores.shape[1]
    return -(torch.logsumexp(-sharpness * scores, dim=1) - math.log(frames)) / sharpness


def best_mean(scores: Tensor, share: float) -> Tensor:
    """Compute the mean of each clip's best `max(1, int(f * share))` frames.

    GenRL's `hpsv3_percentile` has a share of 0.3. The other frames receive no gradient.

    Args:
        scores: `(b, f)`.
        share: In (0, 1].

    Returns:
        `(b,)`.
    """
    count = max(1, int(scores.shape[1] * share))
    return scores.topk(count, dim=1).values.mean(dim=1)


def guidance_gain(guidance_scale: float, negative: str) -> float:
    """Return how much longer a guided velocity's derivative is than that of the positive branch.

    With a detached negative branch d(guided velocity)/d(positive branch) is the guidance scale
    itself. The loss is divided by it, so that guidance does not set the size of the gradient
    (FlowBP, arXiv 2606.11075), and so is the gradient that flows through the states
    (`plan.Plan.over_guidance`). With both branches in the gradient, as in the published script, and
    without guidance, nothing is divided.
    """
    return guidance_scale if negative == "detached" else 1.0


# --- from losses to a gradient


def reward_gradient(loss_fn: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute a loss and its gradient at the reward input; the graph is freed on return.

    Args:
        loss_fn: Maps a leaf like `x` to a scalar loss, differentiably (VAE decoder and judges).
        x: The reward input, `(b, ...)`.

    Returns:
        The loss (detached scalar) and g = d(loss)/dx, shape and dtype of `x`.

    Raises:
        TuningError: The loss is not a scalar, or does not depend on `x`.
    """
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        loss = loss_fn(leaf)
    return loss.detach(), loss_gradient(loss, leaf)


def loss_gradient(loss: Tensor, leaf: Tensor, *, retain_graph: bool = False) -> Tensor:
    """Return d(loss)/d(leaf).

    Raises:
        TuningError: The loss is not a scalar, or does not depend on the leaf.
    """
    if loss.dim() != 0:
        raise TuningError(
            f"the loss has shape {tuple(loss.shape)}; reduce it to a scalar (a mean over clips)"
        )
    if not loss.requires_grad:
        raise TuningError(
            "the loss carries no gradient; the reward or the decoder detaches its input "
            "(no_grad, numpy or integer pixels on the way)"
        )
    (g,) = torch.autograd.grad(loss, leaf, allow_unused=True, retain_graph=retain_graph)
    if g is None:
        raise TuningError("the loss does not depend on the sampled latents")
    return g


def summed_gradient(losses_of: LossesFn, x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the sum of the judges' losses and its gradient at `x`, as `reward_gradient` does."""
    return reward_gradient(lambda latents: torch.stack(list(losses_of(latents))).sum(), x)


def conflict_free_gradient(losses_of: LossesFn, x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the sum of the losses, and a gradient in which no judge works against another.

    PCGrad (Yu et al., arXiv 2001.06782), clip by clip at the latents: each judge's gradient loses
    its component against every other one, in the order of the judges; then they are added. (The
    paper shuffles the order; a fixed order keeps a run repeatable.) Judges that agree give the sum.
    The sweep is linear in this gradient, so a conflict that is removed here is removed in every
    step. The decoder's graph is kept for one backward pass per judge.

    Args:
        losses_of: One loss for each judge.
        x: The reward input, `(b, ...)`.

    Returns:
        As `reward_gradient`.

    Raises:
        TuningError: As `reward_gradient`.
    """
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        losses = list(losses_of(leaf))
    last = len(losses) - 1
    own = [loss_gradient(loss, leaf, retain_graph=i < last) for i, loss in enumerate(losses)]
    total = torch.zeros_like(x)
    for i, gradient in enumerate(own):
        kept = gradient
        for other in own[:i] + own[i + 1 :]:
            kept = kept - _along(kept, other).clamp(max=0.0) * other
        total = total + kept
    return torch.stack([loss.detach() for loss in losses]).sum(), total


def _along(a: Tensor, b: Tensor) -> Tensor:
    """Return <a, b> / <b, b> of each clip, `(b, 1, ...)`; 0 where b is 0."""
    product, square = (t.flatten(1).sum(dim=1) for t in (a * b, b * b))
    share = torch.where(square > 0, product / square.clamp_min(torch.finfo(b.dtype).tiny), 0.0)
    return share.view(-1, *[1] * (b.dim() - 1))
