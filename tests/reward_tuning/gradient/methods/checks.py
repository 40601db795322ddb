"""Checks that every method passes, on a table and on the toy flow."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from base_model.sampling.sigmas import sigma_table
from reward_tuning.gradient.engine import adjoint_sweep, read_reward_input, rollout
from reward_tuning.gradient.losses import reward_gradient
from reward_tuning.gradient.methods import make_plan
from reward_tuning.gradient.plan import chain_weights
from tests.reward_tuning.toy_flow import ToyFlow, chain_gradients, relative_error, toy_loss


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def check_plans_of_the_table(kind: str, **options: object) -> None:
    """Fifty draws on tables of several lengths have the weights of the Euler chain."""
    generator = seeded(5)
    for steps in (7, 10, 16, 25, 50):
        sigmas = sigma_table(steps)
        for _ in range(50):
            plan = make_plan(kind, generator, sigmas, **options)
            assert plan.steps == steps
            # d x-hat / d v_i of the Euler chain
            assert plan.weights == chain_weights(sigmas, plan.stop, plan.reward_input)
            left = float(sigmas[plan.stop]) if plan.reward_input == "state" else 0.0
            assert sum(abs(w) for w in plan.weights) == pytest.approx(1.0 - left, rel=1e-6)
            assert plan.gradient_scale >= 1.0


def check_autograd_of_the_chain(kind: str, **options: object) -> None:
    """The sweep's gradient is that of autograd through the same chain."""
    flow = ToyFlow(8, negative="detached")
    generator = seeded(11)
    for _ in range(4):
        plan = make_plan(kind, generator, flow.sigmas, **options)
        flow.zero_grad()
        states = rollout(flow, flow.noise(), flow.sigmas, plan.stop)
        _, g = reward_gradient(toy_loss, read_reward_input(flow, states, plan))
        adjoint_sweep(flow, states, flow.sigmas, plan, g)
        _, expected = chain_gradients(flow, flow.noise(), flow.sigmas, plan)
        assert relative_error(collected(flow), expected) <= 1e-11, plan.active


def collected(flow: ToyFlow) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in flow.named_parameters() if p.grad is not None}


def autograd(flow: ToyFlow, loss: Tensor) -> dict[str, Tensor]:
    names, own = zip(*flow.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, own), strict=True))


def straight_through(value: Tensor, gradient: Tensor) -> Tensor:
    return gradient + (value - gradient).detach()


class AtSigma(torch.nn.Module):
    """The toy's velocity at one sigma off its table, as the looks call it."""

    def __init__(self, flow: ToyFlow, sigma: float) -> None:
        super().__init__()
        self.flow, self.sigma = flow, torch.tensor([sigma], dtype=torch.float64)

    def forward(self, x: Tensor, i: int) -> Tensor:
        table, self.flow.sigmas = self.flow.sigmas, self.sigma
        try:
            return self.flow(x, i)
        finally:
            self.flow.sigmas = table
