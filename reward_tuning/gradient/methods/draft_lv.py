"""DRaFT-LV: the last step, and the end noised again n times (Clark et al., arXiv 2309.17400)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from reward_tuning.gradient.methods.draft_k import last_steps_plan
from reward_tuning.gradient.methods.method import Method, Rescale, SmallestStep
from reward_tuning.gradient.plan import Plan, Renoised
from reward_tuning.section import Positive

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class DraftLV(Method):
    """DRaFT-LV (arXiv 2309.17400): the last step, and the end noised again n times.

    The chain and its n noised ends weigh alike, as in FlowBP's re-implementation (arXiv
    2606.11075). The paper has n = 2, and its gradient needs `rescale: 0`, `smallest_step: 0` and a
    `smallest_sigma` below the table's last sigma, such as 0.001: then the ends are noised to where
    the last step began.
    """

    kind: Literal["draft_lv"]
    copies: Positive = Field(
        default=2,
        description="n, fresh looks at the end; each costs one pass of the judges and no rollout",
    )
    smallest_sigma: float = Field(
        default=0.05,
        gt=0.0,
        le=1.0,
        description="Lowest sigma that the copies are noised to, at least the table's last "
        "(0.0027), which is the paper's choice and gives next to no gradient",
    )
    rescale: Rescale = 1.0
    smallest_step: SmallestStep = 0.25

    @property
    def not_at_end(self) -> str:
        """Each copy is a fresh look."""
        return "method draft_lv looks at the end afresh each time"

    @property
    def one_plan_only(self) -> str:
        """Each look has a reward gradient of its own."""
        return self.not_at_end

    def plan(self, draw: torch.Generator, sigmas: Tensor) -> Plan:
        """Return the plan; nothing is drawn.

        At V5.1's last sigma, 0.0027, all copies would be nearly one and almost without gradient; at
        0.05 the weight of their velocity is 18 times as large.
        """
        del draw
        last = last_steps_plan(sigmas, 1, rescale=self.rescale, smallest_step=self.smallest_step)
        sigma = max(float(sigmas[-2]), self.smallest_sigma)
        return replace(last, renoised=(Renoised(sigma),) * self.copies)
