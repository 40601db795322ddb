"""DRaFT: plain backpropagation through the whole chain."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from reward_tuning.gradient.engine import adjoint_sweep, read_reward_input, rollout
from reward_tuning.gradient.losses import reward_gradient
from reward_tuning.gradient.methods import make_plan
from tests.reward_tuning.gradient.methods.checks import (
    check_autograd_of_the_chain,
    check_plans_of_the_table,
    seeded,
)
from tests.reward_tuning.toy_flow import ToyFlow, toy_loss

draft = partial(make_plan, "draft")
OPTIONS: list[dict[str, Any]] = [{}, {"nested": 0.5}]


@pytest.mark.parametrize("options", OPTIONS)
def test_every_draw_is_a_plan_of_the_table(options: dict[str, Any]) -> None:
    check_plans_of_the_table("draft", **options)


@pytest.mark.parametrize("options", OPTIONS)
def test_gradient_equals_autograd_of_its_own_chain(options: dict[str, Any]) -> None:
    check_autograd_of_the_chain("draft", **options)


def test_draft_is_plain_backpropagation() -> None:
    """Written out without plans: every step with gradient, one backward."""
    flow = ToyFlow(6)
    plan = draft(seeded(), flow.sigmas)
    x = flow.noise()
    for i in range(6):
        x = x + (flow.sigmas[i + 1] - flow.sigmas[i]) * flow(x, i)
    gradients = torch.autograd.grad(toy_loss(x), list(flow.parameters()))
    flow.zero_grad()
    states = rollout(flow, flow.noise(), flow.sigmas, plan.stop)
    _, g = reward_gradient(toy_loss, read_reward_input(flow, states, plan))
    adjoint_sweep(flow, states, flow.sigmas, plan, g)
    for parameter, gradient in zip(flow.parameters(), gradients, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-11, atol=0)
