"""DRaFT-LV, LeapAlign and Direct-Align against plain autograd of the papers' own definitions."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from base_model.sampling.sigmas import sigma_table
from reward_tuning.errors import TuningError
from reward_tuning.gradient.engine import adjoint_sweep, read_renoised, read_reward_input, rollout
from reward_tuning.gradient.leaps import Leap, leap_likeness, quadrature_weights, spread_steps
from reward_tuning.gradient.losses import reward_gradient
from reward_tuning.gradient.methods import make_plan
from tests.reward_tuning.toy_flow import SHAPE, ToyFlow, relative_error, toy_loss

STEPS = 8


direct_align = partial(make_plan, "direct_align")
draft_k = partial(make_plan, "draft_k")
draft_lv = partial(make_plan, "draft_lv")
flowbp_bridge = partial(make_plan, "flowbp_bridge")
flowbp_lagrange = partial(make_plan, "flowbp_lagrange")
leapalign = partial(make_plan, "leapalign")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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


def test_lagrange_weights_are_those_of_the_open_newton_cotes_rules() -> None:
    """Textbook numbers; and a polynomial of the points' degree is integrated exactly."""
    assert quadrature_weights([0.3], 0.3, 0.1) == pytest.approx([-0.2])
    assert quadrature_weights([1.0, 2.0], 0.0, 3.0) == pytest.approx([1.5, 1.5])
    assert quadrature_weights([1.0, 2.0, 3.0], 0.0, 4.0) == pytest.approx([8 / 3, -4 / 3, 8 / 3])
    assert quadrature_weights([0.0, 1.0, 2.0], 0.0, 3.0) == pytest.approx([0.75, 0.0, 2.25])
    points = [0.9, 0.55, 0.3]
    weights = quadrature_weights(points, 0.9, 0.1)
    for power in range(3):
        exact = (0.1 ** (power + 1) - 0.9 ** (power + 1)) / (power + 1)
        assert sum(w * s**power for w, s in zip(weights, points, strict=True)) == (
            pytest.approx(exact, rel=1e-12)
        )
    assert spread_steps(3, 20, 3) == (3, 11, 19)
    assert spread_steps(3, 5, 3) == (3, 4)
    assert spread_steps(3, 9, 1) == (3,)
    with pytest.raises(TuningError, match="from step 2 to 4 takes the velocities of steps"):
        Leap(2, 4, (2, 4), (-0.1, -0.1))


def test_lagrange_draws_three_parts_and_its_leaps_cover_the_way() -> None:
    generator, sigmas = seeded(), sigma_table(25)
    parts = []
    for _ in range(1500):
        plan = flowbp_lagrange(generator, sigmas)
        first, second = plan.leaps
        parts.append((24 - second.start, second.start - first.start, first.start + 1))
        assert (first.end, second.end) == (second.start, 25)
        for leap in plan.leaps:
            assert leap.steps[:1] == (leap.start,)
            assert leap.steps[-1] == leap.end - 1
            way = float(sigmas[leap.end]) - float(sigmas[leap.start])
            assert sum(leap.weights) == pytest.approx(way)
        assert set(plan.active) <= {*first.steps[:2], *second.steps[:2]}
        assert (plan.through, plan.nested, plan.gradient_scale) == ((second.start,), 0.1, 1.0)
    means = torch.tensor(parts, dtype=torch.float64).mean(dim=0) / 25
    # of a Dirichlet distribution: a / (a + b + c); standard error 0.004
    expected = torch.tensor([2.5, 6.0, 2.0], dtype=torch.float64) / 10.5
    torch.testing.assert_close(means, expected, atol=0.015, rtol=0)
    capped = [flowbp_lagrange(generator, sigmas, longest_last_leap=4) for _ in range(200)]
    assert {25 - plan.leaps[1].start for plan in capped} == {2, 3, 4}
    late = [flowbp_lagrange(generator, sigmas, tail=0.7) for _ in range(200)]
    assert min(plan.active[0] for plan in late) == 7  # the last 18 of 25
    pairs = Counter(
        tuple(leap.start for leap in flowbp_lagrange(generator, mu, concentration=None).leaps)
        for mu in [sigma_table(6)]
        for _ in range(3000)
    )
    assert len(pairs) == 15
    assert all(140 <= count <= 260 for count in pairs.values())
    both = flowbp_lagrange(generator, sigmas, concentration=None, longest_last_leap=3, tail=0.2)
    assert 20 <= both.leaps[0].start < both.leaps[1].start <= 24


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"active_steps": 4}, r"active_steps is 4; allowed is 1 \.\.\. method\.order = 3"),
        ({"second_share": 1.5}, r"second_share is 1\.5"),
        ({"concentration": (1.0, 0.0, 1.0)}, r"concentration is \[1\.0, 0\.0, 1\.0\]"),
        ({"longest_last_leap": 1}, "longest_last_leap is 1"),
        ({"tail": 0.0}, r"tail is 0\.0"),
    ],
)
def test_lagrange_refuses_what_it_cannot_draw(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TuningError, match=said):
        flowbp_lagrange(seeded(), sigma_table(8), **options)
    with pytest.raises(TuningError, match=r"sampling\.steps is 2; flowbp_lagrange needs 3"):
        flowbp_lagrange(seeded(), torch.tensor([1.0, 0.5, 0.0]))


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
