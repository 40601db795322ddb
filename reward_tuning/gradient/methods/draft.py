"""DRaFT: the full adjoint through every step (Clark et al., arXiv 2309.17400)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from reward_tuning.gradient.methods.method import Method, Nested
from reward_tuning.gradient.plan import Plan, chain_weights

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Draft(Method):
    """DRaFT (arXiv 2309.17400): gradient through every step.

    The authors find truncation better: products of N Jacobians explode. `nested: 1` is the paper,
    with both guidance branches in the gradient; less damps the product.
    """

    kind: Literal["draft"]
    nested: Nested = 1.0

    def plan(self, draw: torch.Generator, sigmas: Tensor) -> Plan:
        """Return the plan; nothing is drawn."""
        del draw
        weights = chain_weights(sigmas)
        return Plan(
            steps=len(weights),
            stop=len(weights),
            reward_input="end",
            active=tuple(range(len(weights))),
            weights=weights,
            nested=self.nested,
        )
