"""Estimates of a reward's gradient from scores alone, for judges without one.

A judge that is a black box says how good a clip is, not how to change it. Several clips of one
prompt say that roughly: a direction of the latents along which scores rise is worth following. The
estimate takes the place of the gradient at the reward input; plans and sweep stay as they are.

Both estimates divide the covariance of losses l and latents x by the variance of the latents,

    D * sum_k (l_k - l_mean) (x_k - x_mean) / sum_k |x_k - x_mean|^2,      D latents in a clip.

For latents that vary alike in every direction the mean of this is the mean gradient, exactly so
for a linear or quadratic loss (Stein's lemma). Real clips vary more in some directions than in
others; there it is the gradient times the clips' normalised covariance, which favours directions
that the generator can take. From K clips, the noise in it is about sqrt(D / (K - 1)) times as long
as the gradient; only the average over many steps removes that.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def group_gradient(losses: Tensor, x: Tensor, clips: int) -> Tensor:
    """Estimate the gradient of the mean loss from the clips of each prompt.

    After DiffusionART (arXiv 2610.12572). Each clip gets its own term of the covariance, not the
    group's sum: it is then swept through the states of the very clip that earned the score, which
    agrees better with the exact gradient of the parameters (docs/gradient-estimates.md).

    Args:
        losses: `(b,)`, one of each clip.
        x: `(b, ...)`, the latents that were scored; `clips` neighbours have one prompt.
        clips: K >= 2, a divisor of b.

    Returns:
        Shape and dtype of `x`; 0 where all clips of a prompt are the same.
    """
    change = x.unflatten(0, (-1, clips))
    change = change - change.mean(dim=1, keepdim=True)
    gain = losses.to(x).unflatten(0, (-1, clips))
    gain = gain - gain.mean(dim=1, keepdim=True)
    return clips / len(x) * _terms(gain, change).flatten(0, 1)


def paired_gradient(losses: Tensor, x: Tensor, near: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Estimate the gradient of the mean loss from clips near each clip.

    The idea of finite-difference flow optimisation (arXiv 2603.12893). The slope between two
    points is that of the gradient in the middle between them.

    Args:
        losses: `(b,)`, one of each clip.
        x: `(b, ...)`, the latents that were scored.
        near: Losses and latents of P batches of clips, each clip near that of `x` at its place.

    Returns:
        Shape and dtype of `x`; 0 for a clip whose neighbours are all the same as it.
    """
    gain = torch.stack([other.to(x) - losses.to(x) for other, _ in near], dim=1)
    change = torch.stack([other - x for _, other in near], dim=1)
    return _terms(gain, change).sum(dim=1) / len(x)


def with_gradient(loss: Tensor, x: Tensor, gradient: Tensor) -> Tensor:
    """Return a scalar with the value of `loss` whose derivative at `x` is `gradient`.

    Args:
        loss: A scalar.
        x: The latents, a leaf with gradient.
        gradient: Shape of `x`.
    """
    linear = (gradient.detach() * x).sum()
    return loss.detach() + (linear - linear.detach())


def _terms(gain: Tensor, change: Tensor) -> Tensor:
    """Return D l_k x_k / sum_j |x_j|^2 of `(n, K)` and `(n, K, ...)`: `(n, K, ...)`."""
    flat = change.flatten(2)
    length = flat.square().sum(dim=(1, 2))
    share = torch.where(length > 0, flat.shape[2] / length, 0.0)
    return (share[:, None, None] * gain[..., None] * flat).view_as(change)
