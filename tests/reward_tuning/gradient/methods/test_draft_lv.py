"""DRaFT-LV against autograd of the noised last step."""

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
from tests.reward_tuning.toy_flow import SHAPE, ToyFlow, relative_error, toy_loss

draft_k = partial(make_plan, "draft_k")
draft_lv = partial(make_plan, "draft_lv")
STEPS = 8


@pytest.mark.parametrize(
    ("rescale", "smallest", "sigma"), [(0.0, 0.05, 0.05), (1.0, 0.05, 0.05), (0.0, 0.001, None)]
)
def test_draft_lv_looks_equal_autograd_of_the_noised_last_step(
    rescale: float, smallest: float, sigma: float | None
) -> None:
    """Below the table's last sigma the look begins where the last step did, as in the paper."""
    flow = ToyFlow(STEPS, negative="detached")
    plan = draft_lv(seeded(), flow.sigmas, copies=2, rescale=rescale, smallest_sigma=smallest)
    sigma = float(flow.sigmas[-2]) if sigma is None else sigma
    states = rollout(flow, flow.noise(), flow.sigmas, STEPS)
    for seed, look in enumerate(plan.renoised):
        assert (look.sigma, look.sigma_to, look.own_noise) == (sigma, 0.0, False)
        noise = torch.randn(SHAPE, generator=seeded(seed), dtype=torch.float64)
        velocity = AtSigma(flow, look.sigma)
        x = (1 - look.sigma) * states[-1] + look.sigma * noise
        loss = toy_loss(x - look.sigma * velocity(x, 0))
        scale = 1.0 if rescale == 0.0 else 1 / 0.05
        expected = autograd(flow, scale * loss)
        flow.zero_grad()
        state, seen = read_renoised(velocity, states, noise, look)
        value, g = reward_gradient(toy_loss, seen)
        adjoint_sweep(velocity, [state], flow.sigmas, plan.look(look), g)
        assert float(value) == pytest.approx(float(loss.detach()), rel=1e-12)
        assert relative_error(collected(flow), expected) <= 1e-12


def test_draft_lv_is_draft_1_with_copies() -> None:
    sigmas = sigma_table(25)
    plan = draft_lv(seeded(), sigmas)
    base = draft_k(seeded(), sigmas, active_steps=1)
    assert (plan.active, plan.nested, plan.gradient_scale) == (
        base.active,
        base.nested,
        base.gradient_scale,
    )
    assert [look.sigma for look in plan.renoised] == [0.05, 0.05]
    coarse = torch.tensor([1.0, 0.6, 0.3, 0.0])
    assert draft_lv(seeded(), coarse).renoised[0].sigma == pytest.approx(0.3)
    with pytest.raises(TuningError, match="copies is 0"):
        draft_lv(seeded(), sigmas, copies=0)
    with pytest.raises(TuningError, match="smallest_sigma is 0"):
        draft_lv(seeded(), sigmas, smallest_sigma=0.0)
