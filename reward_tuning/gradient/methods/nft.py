"""DiffusionNFT: a positive and a negative velocity matched to the same clip (arXiv 2509.16117)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from reward_tuning.gradient.methods.matching_method import MatchingMethod

if TYPE_CHECKING:
    from torch import Tensor


class NFT(MatchingMethod):
    """DiffusionNFT (arXiv 2509.16117): good clips match v, bad ones its mirror image in v_old.

    The old velocity is that of the adapter that sampled the step's clips; the paper's is a slow
    average of the adapters before. So the contrast needs `train.updates_per_rollout` of 2 or more:
    at the first update v = v_old, and the gradient is beta times AWM's, advantages clamped to +-1.
    """

    kind: Literal["nft"]
    beta: float = Field(
        default=1.0,
        gt=0.0,
        description="How far the positive and the negative velocity lie from the old one, in "
        "multiples of v - v_old; larger holds v closer to v_old",
    )

    def objective(
        self, velocity: Tensor, target: Tensor, old: Tensor | None, advantages: Tensor
    ) -> Tensor:
        """Return r |v+ - u|^2 + (1 - r) |v- - u|^2, |.|^2 the mean over a clip's numbers.

        v+ = (1 - beta) v_old + beta v, v- = (1 + beta) v_old - beta v, and r = (1 + clamp(A)) / 2.
        Its derivative by v is 2 beta ((2 r - 1) (v_old - u) + beta (v - v_old)) over the count of
        numbers: AWM's at the old velocity, and a pull back to it.
        """
        optimality = 0.5 + 0.5 * advantages.clamp(-1.0, 1.0)
        if old is None:
            old = velocity.detach()
        positive = (1.0 - self.beta) * old + self.beta * velocity
        negative = (1.0 + self.beta) * old - self.beta * velocity
        good, bad = (
            (branch - target).square().flatten(1).mean(dim=1) for branch in (positive, negative)
        )
        return optimality * good + (1.0 - optimality) * bad
