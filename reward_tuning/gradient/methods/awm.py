"""AWM: flow matching on the run's own clips, weighted by their advantage (arXiv 2509.25050)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from reward_tuning.gradient.methods.matching_method import MatchingMethod

if TYPE_CHECKING:
    from torch import Tensor


class AWM(MatchingMethod):
    """Advantage-weighted matching (arXiv 2509.25050): a policy gradient in the forward process.

    The flow-matching loss stands for minus the log-likelihood of a clip, so a clip better than its
    prompt's mean is matched and a worse one is pushed away from.
    """

    kind: Literal["awm"]
    clip: float | None = Field(
        default=1e-2,
        gt=0.0,
        description="From the second of train.updates_per_rollout updates on, a clip whose "
        "likelihood ratio has moved this far from 1 in its advantage's direction gives no more "
        "gradient; null = no limit",
    )

    def objective(
        self, velocity: Tensor, target: Tensor, old: Tensor | None, advantages: Tensor
    ) -> Tensor:
        """Return A |v - u|^2, or off policy the clipped surrogate of it.

        With log p = -|v - u|^2, |.|^2 the mean over a clip's numbers, that is
        -min(r A, clamp(r, 1 - clip, 1 + clip) A), r = p / p_old. At r = 1 its gradient is that of
        A |v - u|^2, which is returned on policy because its value says more than -A.
        """
        import torch

        error = (velocity - target).square().flatten(1).mean(dim=1)
        if old is None:
            return advantages * error
        old_error = (old - target).square().flatten(1).mean(dim=1)
        ratio = torch.exp(old_error - error)
        if self.clip is None:
            return -ratio * advantages
        clamped = ratio.clamp(1.0 - self.clip, 1.0 + self.clip)
        return -torch.minimum(ratio * advantages, clamped * advantages)
