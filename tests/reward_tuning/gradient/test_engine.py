"""The engine against autograd through the whole chain, finite differences and its own memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.gradient import engine, losses
from reward_tuning.gradient.engine import (
    SweepOptions,
    SweepReport,
    adjoint_sweep,
    read_reward_input,
    rollout,
)
from reward_tuning.gradient.losses import reward_gradient
from reward_tuning.gradient.plan import Plan, RewardInput, chain_weights
from tests.reward_tuning.toy_flow import (
    SHAPE,
    ToyFlow,
    chain_gradients,
    relative_error,
    toy_loss,
)

STEPS = 7


def make(active: tuple[int, ...], *, stop: int | None = None, **changes: Any) -> Plan:
    reward_input: RewardInput = "end" if stop is None else "posterior_mean"
    sigmas = ToyFlow(STEPS).sigmas
    return Plan(
        steps=STEPS,
        stop=STEPS if stop is None else stop,
        reward_input=reward_input,
        active=active,
        weights=chain_weights(sigmas, stop, reward_input),
        **changes,
    )


PLANS = {
    "draft_1": make((6,), nested=1.0),
    "draft_3": make((4, 5, 6), nested=1.0),
    "whole_chain": make(tuple(range(STEPS)), nested=1.0),
    "spaced_full_adjoint": make((1, 3, 5), nested=1.0),
    "spaced_cut": make((1, 3, 5), nested=1.0, through=(1, 3, 5)),
    "spaced_damped": make((0, 2, 5), nested=0.3),
    "drtune_end": make((0, 2, 4), nested=0.0),
    "drtune_early": make((0, 2), stop=4, nested=0.0),
    "drtune_early_on_stop": make((1, 4), stop=4, nested=0.0),
    "posterior_mean_full_adjoint": make((1, 2, 4), stop=4, nested=1.0),
    "posterior_mean_through_inactive_stop": make((1, 3), stop=4, nested=1.0),
    "posterior_mean_damped_rescaled": make((0, 3), stop=5, nested=0.4, rescale=0.7),
    "rescaled": make((2, 5), nested=1.0, rescale=1.0),
}


def gradients(flow: ToyFlow) -> dict[str, Tensor]:
    """Copies of what lies in .grad."""
    found = {}
    for name, parameter in flow.named_parameters():
        assert parameter.grad is not None
        found[name] = parameter.grad.clone()
    return found


def sweep_gradients(
    flow: ToyFlow, plan: Plan, **options: Any
) -> tuple[float, dict[str, Tensor], SweepReport]:
    flow.zero_grad()
    states = rollout(flow, flow.noise(), flow.sigmas, plan.stop)
    loss, g = reward_gradient(toy_loss, read_reward_input(flow, states, plan))
    report = adjoint_sweep(flow, states, flow.sigmas, plan, g, **options)
    return float(loss), gradients(flow), report


@pytest.mark.parametrize("negative", ["joint", "detached"])
@pytest.mark.parametrize("name", PLANS)
def test_equals_autograd_through_the_whole_chain(
    name: str, negative: Literal["joint", "detached"]
) -> None:
    flow = ToyFlow(STEPS, negative=negative)
    loss, got, _ = sweep_gradients(flow, PLANS[name])
    expected_loss, expected = chain_gradients(flow, flow.noise(), flow.sigmas, PLANS[name])
    assert loss == pytest.approx(expected_loss, rel=1e-13)
    assert relative_error(got, expected) <= 1e-12


def test_the_plans_differ_so_that_the_equality_says_something() -> None:
    flow = ToyFlow(STEPS)
    seen = [
        chain_gradients(flow, flow.noise(), flow.sigmas, plan)[1]["inner"]
        for plan in PLANS.values()
    ]
    for i, a in enumerate(seen):
        for b in seen[:i]:
            assert float((a - b).norm() / b.norm()) > 1e-3


def test_finite_differences_of_the_whole_chain() -> None:
    flow = ToyFlow(STEPS)
    plan = PLANS["whole_chain"]
    _, gradient, _ = sweep_gradients(flow, plan)
    draw = torch.Generator().manual_seed(3)
    for name, parameter in flow.named_parameters():
        direction = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
        values = []
        for h in (1e-6, -1e-6):
            moved = ToyFlow(STEPS)
            with torch.no_grad():
                moved.get_parameter(name).add_(h * direction)
            values.append(float(toy_loss(rollout(moved, flow.noise(), flow.sigmas, STEPS)[-1])))
        slope = (values[0] - values[1]) / 2e-6
        assert slope == pytest.approx(float((gradient[name] * direction).sum()), rel=1e-7)


@pytest.mark.parametrize("name", ["whole_chain", "drtune_early_on_stop", "rescaled"])
def test_step_losses_ride_on_the_same_rerun(name: str) -> None:
    flow = ToyFlow(STEPS)
    plan = PLANS[name]
    runs = 0

    def counted(x: Tensor, i: int) -> Tensor:
        nonlocal runs
        runs += 1
        return flow(x, i)

    states = rollout(flow, flow.noise(), flow.sigmas, plan.stop)
    _, g = reward_gradient(toy_loss, read_reward_input(flow, states, plan))
    report = adjoint_sweep(
        counted, states, flow.sigmas, plan, g, step_loss=lambda i, x, v: 0.2 * (v**2).mean()
    )
    got = gradients(flow)
    _, expected = chain_gradients(flow, flow.noise(), flow.sigmas, plan, step_loss_weight=0.2)
    _, without = chain_gradients(flow, flow.noise(), flow.sigmas, plan)
    assert runs == len(plan.visited)
    assert relative_error(got, expected) <= 1e-12
    assert relative_error(without, expected) > 1e-2
    assert report.step_loss == pytest.approx(
        sum(0.2 * float((flow(states[i], i).detach() ** 2).mean()) for i in plan.active)
    )


def _reversed_order(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = property(lambda self: tuple(sorted(self.active)))
    monkeypatch.setattr(Plan, "visited", forward)


def _nested_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "visited", property(lambda self: tuple(reversed(self.active))))


def _wrong_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = losses.reward_gradient
    monkeypatch.setattr(losses, "reward_gradient", lambda f, x: (plain(f, x)[0], -plain(f, x)[1]))


def _stale_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step re-run at the state that follows it: the classical off-by-one."""
    plain = engine.adjoint_sweep

    def shifted(velocity: Any, states: list[Tensor], *rest: Any) -> SweepReport:
        return plain(
            velocity,
            [*states[1:], states[-1]],
            *rest,
            options=SweepOptions(rerun_tolerance=float("inf")),
        )

    monkeypatch.setattr(engine, "adjoint_sweep", shifted)


@pytest.mark.parametrize(
    ("mistake", "name"),
    [
        (_reversed_order, "draft_3"),
        (_nested_dropped, "spaced_full_adjoint"),
        (_wrong_sign, "draft_1"),
        (_stale_state, "drtune_end"),
    ],
)
def test_a_wrong_sweep_is_caught(
    monkeypatch: pytest.MonkeyPatch, mistake: Callable[[pytest.MonkeyPatch], None], name: str
) -> None:
    """The control: the comparison above fails by far for the mistakes that are easy to make."""
    flow = ToyFlow(STEPS)
    plan = PLANS[name]
    _, expected = chain_gradients(flow, flow.noise(), flow.sigmas, plan)
    mistake(monkeypatch)
    states = rollout(flow, flow.noise(), flow.sigmas, plan.stop)
    _, g = losses.reward_gradient(toy_loss, read_reward_input(flow, states, plan))
    engine.adjoint_sweep(flow, states, flow.sigmas, plan, g)
    got = gradients(flow)
    assert relative_error(got, expected) > 1e-2


def test_report_of_each_step() -> None:
    flow = ToyFlow(STEPS)
    plan = PLANS["spaced_full_adjoint"]
    _, plain, _ = sweep_gradients(flow, plan)
    _, observed, report = sweep_gradients(flow, plan, parameters=flow.parameters())
    assert all(torch.equal(plain[n], observed[n]) for n in plain)  # watching changes nothing
    assert [s.step for s in report.steps] == [6, 5, 4, 3, 2, 1]
    assert [s.active for s in report.steps] == [False, True, False, True, False, True]
    assert [s.weight for s in report.steps] == [abs(w) for w in reversed(plan.weights[1:])]
    assert report.gradient_scale == 1.0
    states = rollout(flow, flow.noise(), flow.sigmas, STEPS)
    _, g = reward_gradient(toy_loss, states[-1])
    assert report.steps[0].adjoint_norm == pytest.approx(float(g.norm()))
    assert report.adjoint_growth == pytest.approx(
        max(s.adjoint_norm for s in report.steps) / float(g.norm())
    )
    # The nearest active step's share, by hand: g at its output came through step 6.
    x6 = states[6].clone().requires_grad_()
    (pulled,) = torch.autograd.grad((plan.weights[6] * g * flow(x6, 6)).sum(), x6)
    flow.zero_grad()
    (plan.weights[5] * (g + pulled) * flow(states[5], 5)).sum().backward()
    by_hand = torch.stack([gradient.norm() for gradient in gradients(flow).values()]).norm()
    assert report.steps[1].gradient_norm == pytest.approx(float(by_hand), rel=1e-12)
    assert report.steps[0].gradient_norm is None
    assert all(s.rerun_error < 1e-10 for s in report.steps)


def test_the_adjoints_limit_shortens_each_clip_alone() -> None:
    """By hand: g_k <- g_k min(1, c |g_N| / |g_k|), clip by clip, before the next step sees it."""
    flow = ToyFlow(STEPS)
    plan = PLANS["whole_chain"]
    states = rollout(flow, flow.noise(), flow.sigmas, STEPS)
    _, g = reward_gradient(toy_loss, states[-1])
    longest = 1.05 * g.flatten(1).norm(dim=1)
    flow.zero_grad()
    cut = []
    adjoint = g
    for i in reversed(range(STEPS)):
        x = states[i].clone().requires_grad_()
        (plan.weights[i] * adjoint * flow(x, i)).sum().backward()
        assert x.grad is not None
        adjoint = adjoint + x.grad
        factor = (longest / adjoint.flatten(1).norm(dim=1)).clamp(max=1.0)
        cut.append(factor)
        adjoint = adjoint * factor[:, None, None]
    expected = gradients(flow)
    flow.zero_grad()
    adjoint_sweep(flow, states, flow.sigmas, plan, g, options=SweepOptions(adjoint_limit=1.05))
    got = gradients(flow)
    assert relative_error(got, expected) <= 1e-12
    factors = torch.stack(cut)
    assert bool((factors < 0.999).any())  # it did something, and not to both clips alike
    assert bool((factors[:, 0] != factors[:, 1]).any())
    _, exact, _ = sweep_gradients(flow, plan)
    assert relative_error(exact, expected) > 1e-2
    _, loose, _ = sweep_gradients(flow, plan, options=SweepOptions(adjoint_limit=1e6))
    assert relative_error(loose, exact) == 0.0


def test_a_step_norm_gives_every_step_that_norm() -> None:
    flow = ToyFlow(STEPS)
    plan = PLANS["drtune_end"]
    _, found, report = sweep_gradients(
        flow, plan, parameters=flow.parameters(), options=SweepOptions(step_norm=0.5)
    )
    expected = {name: torch.zeros_like(p) for name, p in flow.named_parameters()}
    for i in plan.active:
        one = make((i,), nested=0.0)
        _, alone, _ = sweep_gradients(flow, one)
        length = torch.stack([t.norm() for t in alone.values()]).norm()
        for name, t in alone.items():
            expected[name] += 0.5 * t / length
    assert relative_error(found, expected) <= 1e-12
    told = [s.gradient_norm for s in report.steps]  # what they were, not what was made of them
    assert all(norm is not None and abs(norm - 0.5) > 1e-3 for norm in told)
    states = rollout(flow, flow.noise(), flow.sigmas, STEPS)
    flow.zero_grad()
    none = torch.zeros_like(states[0])
    own = list(flow.parameters())
    adjoint_sweep(
        flow, states, flow.sigmas, plan, none, parameters=own, options=SweepOptions(step_norm=0.5)
    )
    assert all(not t.any() for t in gradients(flow).values())
    with pytest.raises(TuningError, match="must be given the parameters"):
        adjoint_sweep(flow, states, flow.sigmas, plan, none, options=SweepOptions(step_norm=0.5))
    with pytest.raises(TuningError, match=r"limit is 0\.5"):
        adjoint_sweep(
            flow, states, flow.sigmas, plan, none, options=SweepOptions(adjoint_limit=0.5)
        )


def test_gradients_accumulate_on_what_was_there() -> None:
    flow = ToyFlow(STEPS)
    _, once, _ = sweep_gradients(flow, PLANS["draft_3"])
    states = rollout(flow, flow.noise(), flow.sigmas, STEPS)
    _, g = reward_gradient(toy_loss, states[-1])
    every: list[dict[str, Any]] = [{}, {"parameters": list(flow.parameters())}]
    for options in every:
        flow.zero_grad()
        for _ in range(2):
            adjoint_sweep(flow, states, flow.sigmas, PLANS["draft_3"], g, **options)
        twice = {n: gradient / 2 for n, gradient in gradients(flow).items()}
        assert relative_error(twice, once) <= 1e-14


def test_rollout_keeps_no_graph_and_fp32_states() -> None:
    flow = ToyFlow(STEPS).float()
    flow.sigmas, flow.prompts = flow.sigmas.float(), flow.prompts.float()
    states = rollout(lambda x, i: flow(x, i).bfloat16(), torch.ones(SHAPE), flow.sigmas, 3)
    assert [s.dtype for s in states] == [torch.float32] * 4
    assert not any(s.requires_grad for s in states)
    with pytest.raises(TuningError, match="bfloat16"):
        rollout(flow, torch.ones(SHAPE, dtype=torch.bfloat16), flow.sigmas, 3)
    with pytest.raises(TuningError, match="stop is 8"):
        rollout(flow, torch.ones(SHAPE), flow.sigmas, 8)


def test_sweep_refuses_an_irreproducible_rerun() -> None:
    """Dropout in the rollout's velocity makes the re-run another function: never in silence."""
    flow = ToyFlow(STEPS)
    plan = PLANS["draft_3"]
    torch.manual_seed(0)

    def with_dropout(x: Tensor, i: int) -> Tensor:
        return torch.nn.functional.dropout(flow(x, i), 0.1)

    states = rollout(with_dropout, flow.noise(), flow.sigmas, STEPS)
    with pytest.raises(TuningError, match="dropout"):
        adjoint_sweep(with_dropout, states, flow.sigmas, plan, torch.ones(SHAPE))


def test_sweep_refuses_misfits() -> None:
    flow = ToyFlow(STEPS)
    plan = PLANS["draft_3"]
    states = rollout(flow, flow.noise(), flow.sigmas, STEPS)
    g = torch.ones(SHAPE, dtype=torch.float64)
    with pytest.raises(TuningError, match="7 states for a plan that stops at 7"):
        adjoint_sweep(flow, states[:-1], flow.sigmas, plan, g)
    with pytest.raises(TuningError, match="reward gradient has shape"):
        adjoint_sweep(flow, states, flow.sigmas, plan, g[:1])
    with pytest.raises(TuningError, match="carries no gradient"):
        flow.requires_grad_(False)
        adjoint_sweep(flow, states, flow.sigmas, PLANS["drtune_end"], g)
