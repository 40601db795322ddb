"""Truncated adjoint matching: regress the last steps' velocities (arXiv 2605.06583)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from reward_tuning.gradient.methods.draft_k import last_steps_plan
from reward_tuning.gradient.methods.method import Method, SmallestStep
from reward_tuning.gradient.plan import Plan
from reward_tuning.section import Positive

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class AdjointMatching(Method):
    """Adjoint matching of the last K steps with a deterministic control (arXiv 2605.06583).

    At the states of the rollout the velocity is regressed onto the base's plus `strength` times the
    adjoint of the loss under the current adapter. Both are constants of the regression, so its
    fixed point is a finite distance from the base, where a plain gradient never ends.
    """

    kind: Literal["adjoint_matching"]
    active_steps: Positive = Field(description="K, the last steps that are regressed")
    strength: float = Field(
        default=1.0,
        gt=0.0,
        description="How far from the base's velocity the regression aims, in multiples of the "
        "adjoint (times the count of a clip's numbers); larger = more reward, farther from the "
        "base. The pull to the base has the weight 1 / (2 strength)",
    )
    smallest_step: SmallestStep = 0.25

    def plan(self, draw: torch.Generator, sigmas: Tensor) -> Plan:
        """Return the plan, DRaFT-K's with the regression; nothing is drawn."""
        del draw
        chain = last_steps_plan(
            sigmas, self.active_steps, rescale=0.0, smallest_step=self.smallest_step
        )
        return replace(chain, regression=self.strength)
