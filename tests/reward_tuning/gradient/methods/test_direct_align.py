"""Direct-Align: the end it recovers, its gradient, and its range of noise."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from base_model.sampling.sigmas import sigma_table
from reward_tuning.errors import TuningError
from reward_tuning.gradient.engine import adjoint_sweep, read_renoised, rollout
from reward_tuning.gradient.losses import reward_gradient
from reward_tuning.gradient.methods import make_plan
from tests.reward_tuning.gradient.methods.checks import (
    AtSigma,
    autograd,
    collected,
    seeded,
)
from tests.reward_tuning.toy_flow import ToyFlow, relative_error, toy_loss

direct_align = partial(make_plan, "direct_align")
STEPS = 8


def test_direct_align_recovers_the_end_and_its_gradient() -> None:
    flow = ToyFlow(STEPS, negative="detached")
    generator = seeded(6)
    for _ in range(8):
        plan = direct_align(generator, flow.sigmas, sigma_range=(0.2, 0.95), stride=0.1)
        (look,) = plan.renoised
        s, to = look.sigma, look.sigma_to
        states = rollout(flow, flow.noise(), flow.sigmas, STEPS)
        noise, end = states[0], states[-1]
        velocity = AtSigma(flow, s)
        noised = (1 - s) * end + s * noise
        recovered = (noised + (to - s) * velocity(noised, 0) - to * noise) / (1 - to)
        expected = autograd(flow, toy_loss(recovered))
        flow.zero_grad()
        state, seen = read_renoised(velocity, states, torch.zeros_like(noise), look)
        _, g = reward_gradient(toy_loss, seen)
        adjoint_sweep(velocity, [state], flow.sigmas, plan.look(look), g)
        torch.testing.assert_close(seen, recovered.detach(), rtol=1e-12, atol=1e-12)
        assert relative_error(collected(flow), expected) <= 1e-12
        # The velocity that knows, e - x_N, gives the end back whatever s is.
        exact = noise - end
        _, same = read_renoised(lambda x, i, v=exact: v, states, noise, look)
        torch.testing.assert_close(same, end)


def test_direct_align_draws_its_range_and_discounts_late_steps() -> None:
    generator, sigmas = seeded(), sigma_table(25)
    looks = [direct_align(generator, sigmas).renoised[0] for _ in range(500)]
    starts = torch.tensor([look.sigma for look in looks])
    # the authors' steps 5 to 25 of 50 with a shift of 3, a tenth of that way in one call
    first, last = (3 * t / (1 + 2 * t) for t in (1 - 5 / 50, 1 - 25 / 50))
    assert last <= float(starts.min()) < last + 0.01
    assert first - 0.015 < float(starts.max()) <= first
    assert float(starts.mean()) == pytest.approx((first + last) / 2, abs=0.015)
    for look in looks:
        assert (look.own_noise, look.share) == (True, 1.0)
        assert look.sigma - look.sigma_to == pytest.approx((first - last) / 10, abs=0.001)
    look = direct_align(generator, sigmas, stride=0.1, discount=True).renoised[0]
    assert look.share == pytest.approx(3 * look.sigma_to / (1 + 2 * look.sigma_to))
    even = direct_align(generator, sigmas, discount=False, stride=1.0)
    assert (even.active, even.renoised[0].share, even.renoised[0].sigma_to) == ((), 1.0, 0.0)
    with pytest.raises(TuningError, match=r"sigma_range is \[0\.5, 1\.0\]"):
        direct_align(generator, sigmas, sigma_range=(0.5, 1.0))
    with pytest.raises(TuningError, match="stride is 0"):
        direct_align(generator, sigmas, stride=0.0)
    with pytest.raises(TuningError, match="would take all from a look"):
        direct_align(generator, sigmas, stride=0.8, discount=True)
