"""Steps of a rollout that keep their graph, so that the sweep need not run them again.

The rollout computes such a step with gradient, on a leaf of its own: the state's value without its
past. The sweep takes leaf and velocity and goes on as if it had run the step itself, so gradient
and adjoints are the same; saved is one forward pass, paid is the memory of one step's graph until
the sweep has used it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from reward_tuning.gradient.plan import Plan

VelocityFn = Callable[[Tensor, int], Tensor]
"""`(x_i, i) -> v_i`: the guided velocity at step i, `(b, ...)` like x_i, differentiable."""


@dataclass(frozen=True)
class KeptStep:
    """A step with its graph.

    Attributes:
        x: The leaf x_i; its `grad` is empty.
        v: The velocity v_i, differentiable in the parameters and, where a gradient flows through
            the state, in `x`.
        last: No other plan needs the graph, so the backward pass frees it.
    """

    x: Tensor
    v: Tensor
    last: bool


class KeptGraphs:
    """The velocity of one rollout, `(x_i, i) -> v_i`, that keeps the graphs of some steps.

    Call it in the rollout in place of the velocity, and give it to the sweep of every plan, each of
    which frees the graphs that no later plan needs.

    Args:
        velocity: The rollout's velocity.
        plans: Plans that are swept over this rollout.
        most: Number of graphs to keep. The last steps that the plans visit are kept: the sweep
            begins with them, so their memory is free again before it runs a step itself.
        with_gradient: How a kept step is computed; None for `velocity` with gradient mode on.
    """

    def __init__(
        self,
        velocity: VelocityFn,
        plans: Iterable[Plan],
        most: int,
        with_gradient: VelocityFn | None = None,
    ) -> None:
        self._velocity = velocity
        self._with_gradient = with_gradient or velocity
        plans = list(plans)
        visited = sorted({i for plan in plans for i in plan.visited}, reverse=True)
        self.steps = frozenset(visited[:most])
        self._uses = {i: sum(i in plan.visited for plan in plans) for i in self.steps}
        self._flows = {i: any(plan.flows_through(i) for plan in plans) for i in self.steps}
        self._held: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(self, x: Tensor, i: int) -> Tensor:
        """Return the velocity of a step without gradient, and keep its graph where wanted."""
        if i not in self.steps:
            return self._velocity(x, i)
        leaf = x.detach().requires_grad_(self._flows[i])
        with torch.enable_grad():
            v = self._with_gradient(leaf, i)
        self._held[i] = (leaf, v)
        return v.detach()

    def take(self, i: int) -> KeptStep:
        """Return a kept step for the sweep of one plan; forgotten after the last plan's.

        Args:
            i: One of `steps`, which the rollout has visited.
        """
        x, v = self._held[i]
        self._uses[i] -= 1
        last = self._uses[i] == 0
        if last:
            del self._held[i]
        x.grad = None  # an earlier plan's
        return KeptStep(x, v, last)
