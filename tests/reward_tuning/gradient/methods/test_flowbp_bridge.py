"""FlowBP-Bridge: its draw, and its gradient against autograd with the authors' connectors."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest
from torch import Tensor

from base_model.sampling.sigmas import sigma_table
from reward_tuning.errors import TuningError
from reward_tuning.gradient.engine import adjoint_sweep, read_reward_input, rollout
from reward_tuning.gradient.losses import reward_gradient
from reward_tuning.gradient.methods import make_plan
from tests.reward_tuning.gradient.methods.checks import (
    autograd,
    check_autograd_of_the_chain,
    check_plans_of_the_table,
    collected,
    seeded,
    straight_through,
)
from tests.reward_tuning.toy_flow import ToyFlow, relative_error, toy_loss

flowbp_bridge = partial(make_plan, "flowbp_bridge")
STEPS = 8
OPTIONS: list[dict[str, Any]] = [
    {},
    {"active_steps": 2, "nested": 0.5},
    {"active_steps": 4, "rescale": 1.0},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_every_draw_is_a_plan_of_the_table(options: dict[str, Any]) -> None:
    check_plans_of_the_table("flowbp_bridge", **options)


@pytest.mark.parametrize("options", OPTIONS)
def test_gradient_equals_autograd_of_its_own_chain(options: dict[str, Any]) -> None:
    check_autograd_of_the_chain("flowbp_bridge", **options)


def test_flowbp_bridge_crosses_one_step_with_steps_on_both_sides() -> None:
    generator, sigmas = seeded(), sigma_table(12)
    bridges: Counter[int] = Counter()
    for _ in range(2000):
        plan = flowbp_bridge(generator, sigmas, rescale=0.0)
        (bridge,) = plan.through or ()
        bridges[bridge] += 1
        assert len(plan.active) == 5
        assert bridge in plan.active
        assert plan.active[0] < bridge
        assert plan.active[-1] <= 10  # 11 is the step of |d| = 0.0027
        before = sum(i < bridge for i in plan.active)
        behind = 10 - bridge
        assert before == min(max(round(5 * bridge / 11), 1, 4 - behind), bridge, 4)
        assert plan.visited == tuple(reversed(plan.active))
        assert (plan.nested, plan.gradient_scale) == (0.1, 1.0)
    # the later of two of 11: j with probability j / 55
    for j in range(1, 11):
        expected = 2000 * j / 55
        assert abs(bridges[j] - expected) < 4.5 * expected**0.5, j
    for _ in range(50):  # the rescale multiplies what crosses the bridge, too
        plan = flowbp_bridge(generator, sigmas, nested=1.0, rescale=0.5)
        carried = sum(abs(plan.weights[i]) for i in plan.active)
        assert plan.gradient_scale == pytest.approx(0.5 + 0.5 / carried)
        assert plan.nested == plan.gradient_scale > 1.0
    for k in range(2, 12):  # up to every step there is
        for _ in range(100):
            assert len(flowbp_bridge(generator, sigmas, active_steps=k).active) == k


@pytest.mark.parametrize(("nested", "rescale"), [(0.1, 1.0), (0.5, 0.0), (1.0, 0.5)])
def test_bridge_equals_autograd_with_the_authors_connectors(nested: float, rescale: float) -> None:
    """x_j composed of the steps before, the end of x_j and the steps from j on; S on every v."""
    flow = ToyFlow(STEPS, negative="detached")
    generator, s = seeded(4), flow.sigmas
    for _ in range(12):
        plan = flowbp_bridge(generator, s, active_steps=4, nested=nested, rescale=rescale)
        lengths = (s[1:] - s[:-1]).abs()
        factor = 1 + rescale * (lengths.sum() / lengths[list(plan.active)].sum() - 1)
        (j,) = plan.through or ()
        states = rollout(flow, flow.noise(), s, STEPS)

        def step(
            x: Tensor,
            i: int,
            seen: Tensor,
            active: tuple[int, ...] = plan.active,
            factor: Tensor = factor,
        ) -> Tensor:
            v = flow(seen, i)
            v = v.detach() + factor * (v - v.detach()) if i in active else v.detach()
            return x + (s[i + 1] - s[i]) * v

        x = states[0]
        for i in range(j):
            x = step(x, i, states[i])
        at_j = straight_through(states[j], x)
        x = at_j
        for i in range(j, STEPS):
            seen = nested * at_j + (1 - nested) * at_j.detach() if i == j else states[i]
            x = step(x, i, seen)
        expected = autograd(flow, toy_loss(straight_through(states[-1], x)))
        flow.zero_grad()
        _, g = reward_gradient(toy_loss, read_reward_input(flow, states, plan))
        adjoint_sweep(flow, states, s, plan, g)
        assert relative_error(collected(flow), expected) <= 1e-11, plan.active


def test_refusals() -> None:
    sigmas = sigma_table(10)
    with pytest.raises(TuningError, match="active_steps is 1; must be greater than or equal to 2"):
        flowbp_bridge(seeded(), sigmas, active_steps=1)
    with pytest.raises(TuningError, match=r"active_steps is 10.* 1 \.\.\. 9"):
        flowbp_bridge(seeded(), sigmas, active_steps=10)
    with pytest.raises(TuningError, match="lateness is -1"):
        flowbp_bridge(seeded(), sigmas, lateness=-1.0)
