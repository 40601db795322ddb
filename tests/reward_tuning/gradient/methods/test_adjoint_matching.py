"""Adjoint matching: its plan, and the gradient of its regression written out in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from base_model.sampling.sigmas import sigma_table
from reward_tuning.gradient.engine import (
    SweepOptions,
    adjoint_sweep,
    read_reward_input,
    rollout,
)
from reward_tuning.gradient.losses import reward_gradient
from reward_tuning.gradient.methods import make_plan
from tests.reward_tuning.gradient.methods.checks import seeded
from tests.reward_tuning.toy_flow import ToyFlow, relative_error, toy_loss


def test_its_plan_is_that_of_draft_k_without_rescale() -> None:
    sigmas = sigma_table(25)
    plan = make_plan("adjoint_matching", seeded(), sigmas, active_steps=3, strength=0.2)
    chain = make_plan("draft_k", seeded(), sigmas, active_steps=3, rescale=0.0)
    assert plan.regression == 0.2
    for name in ("steps", "stop", "reward_input", "active", "weights", "nested", "rescale"):
        assert getattr(plan, name) == getattr(chain, name)
    assert (plan.nested, plan.gradient_scale) == (1.0, 1.0)


@pytest.mark.parametrize("strength", [0.3, 2.0])
def test_the_sweep_is_the_gradient_of_the_regression(strength: float) -> None:
    """Targets v_base + strength n dL/dx_{i+1}, adjoints by autograd through the rest of the chain.

    L is the loss of one clip, n the count of its numbers, and the regression's weights |d_i|.
    """
    flow, base = ToyFlow(8), ToyFlow(8)
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=draw, dtype=torch.float64))
    sigmas = flow.sigmas
    plan = make_plan("adjoint_matching", seeded(), sigmas, active_steps=3, strength=strength)
    states = rollout(flow, flow.noise(), sigmas, plan.stop)
    count = states[0][0].numel()

    def after(x: Tensor, i: int) -> Tensor:
        """The chain from x_{i + 1} on, by the current adapter."""
        for j in range(i + 1, 8):
            x = x + (sigmas[j + 1] - sigmas[j]) * flow(x, j)
        return x

    total = torch.zeros((), dtype=torch.float64)
    for i in plan.active:
        leaf = states[i + 1].detach().requires_grad_()
        # toy_loss is the mean of the clips' losses
        (adjoint,) = torch.autograd.grad(len(leaf) * toy_loss(after(leaf, i)), leaf)
        with torch.no_grad():
            target = base(states[i], i) + strength * count * adjoint
        length = float(sigmas[i] - sigmas[i + 1])
        total = total + length / (2 * strength) * (flow(states[i], i) - target).square().mean()
    names = [name for name, _ in flow.named_parameters()]
    expected = torch.autograd.grad(total, list(flow.parameters()))

    def pull(i: int, x: Tensor, v: Tensor) -> Tensor:
        with torch.no_grad():
            still = base(x, i)
        return 0.5 / strength * abs(plan.weights[i]) * (v - still).square().mean()

    _, g = reward_gradient(toy_loss, read_reward_input(flow, states, plan))
    adjoint_sweep(
        flow,
        states,
        sigmas,
        plan,
        g,
        step_loss=pull,
        options=SweepOptions(local_step_loss=True),
    )
    got = {name: p.grad.clone() for name, p in flow.named_parameters() if p.grad is not None}
    assert relative_error(got, dict(zip(names, expected, strict=True))) < 1e-12


def test_a_step_loss_that_flows_on_is_another_gradient() -> None:
    """What `local_step_loss` leaves out is there without it."""
    flow = ToyFlow(8)
    plan = make_plan("adjoint_matching", seeded(), flow.sigmas, active_steps=3)
    states = rollout(flow, flow.noise(), flow.sigmas, 8)
    _, g = reward_gradient(toy_loss, states[-1])
    found = []
    for local in (True, False):
        for p in flow.parameters():
            p.grad = None
        adjoint_sweep(
            flow,
            states,
            flow.sigmas,
            plan,
            g,
            step_loss=lambda i, x, v: v.square().mean(),
            options=SweepOptions(local_step_loss=local),
        )
        found.append({n: p.grad.clone() for n, p in flow.named_parameters() if p.grad is not None})
    assert relative_error(found[0], found[1]) > 1e-3
