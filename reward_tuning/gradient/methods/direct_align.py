"""Direct-Align: noise the end with known noise, one call, take the rest off (arXiv 2509.06942)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, Strict

from reward_tuning.errors import TuningError
from reward_tuning.gradient.methods.method import Method
from reward_tuning.gradient.plan import Plan, Renoised, chain_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class DirectAlign(Method):
    """Direct-Align of SRPO (arXiv 2509.06942): noise the end, one model call, known noise off.

    The defaults are the authors' with HPS; with PickScore they take 0.67 to 0.96 and a stride of
    0.03. Their "discount" is no factor of the loss: it is the k of their semantic-relative reward,
    which grows with the noise from 0.1 to 0.25 (a judge's `relative.k` here, one value).
    """

    kind: Literal["direct_align"]
    stride: float = Field(
        default=0.022, gt=0.0, le=1.0, description="How far the one call goes, in sigma"
    )
    sigma_range: Annotated[tuple[float, float], Strict(False)] = Field(
        default=(0.75, 0.96), description="Where it starts, drawn uniformly; within (0, 1)"
    )
    discount: bool = Field(
        default=False,
        description="Weight looks by 3 s' / (1 + 2 s'), less at low noise; not in the paper",
    )

    @property
    def not_at_end(self) -> str:
        """Its only reward input is a fresh look."""
        return "method direct_align looks at the end afresh each time"

    @property
    def one_plan_only(self) -> str:
        """Each look has a reward gradient of its own."""
        return self.not_at_end

    def plan(self, draw: torch.Generator, sigmas: Tensor) -> Plan:
        """Draw the plan: one model call anywhere on the path, its noise known.

        The rollout's end is noised to s, uniform in `sigma_range`, with the clip's own initial
        noise; one velocity takes it to s' = max(s - stride, 0), and the noise that is left is known
        and subtracted. So every noise level can be trained at the cost of one call, and only a
        share of the picture that the judge sees is the model's answer at s. The authors leave out
        the highest noise, where the structure breaks.

        Raises:
            TuningError: A range out of bounds.
        """
        import torch

        low, high = self.sigma_range
        if not 0.0 < low <= high < 1.0:
            raise TuningError(
                f"method.sigma_range is {list(self.sigma_range)}; needed is 0 < low <= high < 1"
            )
        if self.discount and self.stride >= low:
            raise TuningError(
                f"method.stride is {self.stride} and sigma_range begins at {low}: the discount "
                "would take all from a look that ends at 0; begin above the stride, or set "
                "discount to false"
            )
        weights = chain_weights(sigmas)
        place = float(torch.rand((), generator=draw, dtype=torch.float64))
        sigma = low + (high - low) * place
        to = max(sigma - self.stride, 0.0)
        share = 3.0 * to / (1.0 + 2.0 * to) if self.discount else 1.0
        look = Renoised(sigma, to, own_noise=True, share=share)
        return Plan(len(weights), len(weights), "end", (), weights, renoised=(look,))
