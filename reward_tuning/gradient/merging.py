"""How the gradients of several judges at the sampled latents become one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from reward_tuning.gradient.engine import loss_gradient, reward_gradient

Merge = Literal["sum", "pcgrad"]

LossesFn = Callable[[Tensor], Sequence[Tensor]]
"""Latents `(b, ...)` -> one scalar loss a judge, differentiable."""


def summed_gradient(losses_of: LossesFn, x: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the losses, and its gradient at x: `engine.reward_gradient` of the sum."""
    return reward_gradient(lambda latents: torch.stack(list(losses_of(latents))).sum(), x)


def conflict_free_gradient(losses_of: LossesFn, x: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the losses, and a gradient in which no judge works against another.

    PCGrad (Yu et al., arXiv 2001.06782), clip by clip at the latents: from each judge's gradient
    the part that runs against another one's is taken, judge by judge in the order given; then they
    are added. (The paper shuffles the order; here a run stays repeatable.) Judges that agree give
    the sum. Since the sweep is linear in this gradient, what is free of conflict here is so for
    every step. The graph of the decoder is kept for one backward pass a judge.

    Args:
        losses_of: one loss a judge.
        x: the reward input, `(b, ...)`.

    Returns:
        As `engine.reward_gradient`.

    Raises:
        TuningError: as `engine.reward_gradient`.
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
    """<a, b> / <b, b> of each clip, `(b, 1, ...)`; 0 where b is 0."""
    product, square = (t.flatten(1).sum(dim=1) for t in (a * b, b * b))
    share = torch.where(square > 0, product / square.clamp_min(torch.finfo(b.dtype).tiny), 0.0)
    return share.view(-1, *[1] * (b.dim() - 1))
