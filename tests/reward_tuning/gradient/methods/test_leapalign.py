"""LeapAlign against autograd through its connectors."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest
import torch
from torch import Tensor

from base_model.sampling.sigmas import sigma_table
from reward_tuning.errors import TuningError
from reward_tuning.gradient.engine import adjoint_sweep, read_reward_input, rollout
from reward_tuning.gradient.leaps import leap_likeness
from reward_tuning.gradient.losses import reward_gradient
from reward_tuning.gradient.methods import make_plan
from tests.reward_tuning.gradient.methods.checks import (
    autograd,
    collected,
    seeded,
    straight_through,
)
from tests.reward_tuning.toy_flow import ToyFlow, relative_error, toy_loss

leapalign = partial(make_plan, "leapalign")
STEPS = 8


@pytest.mark.parametrize("nested", [0.0, 0.3, 1.0])
def test_leapalign_equals_autograd_through_its_connectors(nested: float) -> None:
    """x_j and the end in value from the rollout, in gradient from the leaps; per clip a weight."""
    flow = ToyFlow(STEPS, negative="detached")
    generator, s = seeded(3), flow.sigmas
    for _ in range(12):
        plan = leapalign(generator, s, nested=nested)
        k, j = plan.active
        states = rollout(flow, flow.noise(), s, STEPS)
        x_j, end = states[j], states[-1]
        leapt = states[k] + (s[j] - s[k]) * flow(states[k], k)
        at_j = straight_through(x_j, leapt)
        seen = nested * at_j + (1 - nested) * at_j.detach()
        landed = at_j - s[j] * flow(seen, j)
        d_j = (leapt - x_j).abs().mean(dim=(1, 2))
        d_0 = (landed - end).abs().mean(dim=(1, 2))
        likeness = (1 / (d_j.clamp(min=0.1) + d_0.clamp(min=0.1))).detach()
        ours = leap_likeness(states, s, plan.leaps, 0.1)
        assert ours == pytest.approx(likeness.numpy(), rel=1e-12)

        def weighted(x: Tensor, likeness: Tensor = likeness) -> Tensor:
            return torch.stack(
                [w * toy_loss(clip) for w, clip in zip(likeness, x, strict=True)]
            ).mean()

        expected = autograd(flow, weighted(straight_through(end, landed)))
        flow.zero_grad()
        _, g = reward_gradient(weighted, read_reward_input(flow, states, plan))
        adjoint_sweep(flow, states, s, plan, g)
        assert relative_error(collected(flow), expected) <= 1e-11, (k, j)


def test_leapalign_draws_every_pair_alike() -> None:
    generator, sigmas = seeded(), sigma_table(6)
    pairs = Counter(leapalign(generator, sigmas).active for _ in range(3000))
    assert len(pairs) == 15
    # 200 each, standard deviation 13.7
    assert all(140 <= count <= 260 for count in pairs.values())
    plan = leapalign(generator, sigmas)
    k, j = plan.active
    # one leap to x_j and one to the end: together the way from s_k to 0
    assert sum(abs(w) for w in plan.weights) == pytest.approx(float(sigmas[k]), rel=1e-6)
    assert plan.weights[j] == pytest.approx(-float(sigmas[j]))
    assert plan.visited == (j, k)
    assert leapalign(generator, sigmas, leap_floor=None).leap_floor is None
    with pytest.raises(TuningError, match=r"sampling\.steps is 1"):
        leapalign(generator, torch.tensor([1.0, 0.0]))
