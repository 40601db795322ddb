"""Graphs kept from the rollout: the sweep's gradient without its re-runs, at their memory."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from base_model.generator import Generator
from base_model.sampling.sigmas import sigma_table
from reward_tuning.errors import TuningError
from reward_tuning.gradient.engine import (
    SweepOptions,
    SweepReport,
    adjoint_sweep,
    read_reward_input,
    rollout,
)
from reward_tuning.gradient.kept import KeptGraphs
from reward_tuning.gradient.losses import reward_gradient
from reward_tuning.gradient.plan import Plan, chain_weights
from tests.reward_tuning.golden_model import golden_velocity
from tests.reward_tuning.gradient import test_engine_on_the_model as model
from tests.reward_tuning.gradient.test_engine import PLANS, STEPS, gradients, make
from tests.reward_tuning.live_bytes import LiveBytes
from tests.reward_tuning.toy_flow import ToyFlow, chain_gradients, relative_error, toy_loss

generator = model.generator


class Counted:
    """A flow that notes its calls, and whether they had a gradient."""

    def __init__(self, flow: ToyFlow) -> None:
        self.flow = flow
        self.calls: list[tuple[int, bool]] = []

    def __call__(self, x: Tensor, i: int) -> Tensor:
        self.calls.append((i, torch.is_grad_enabled()))
        return self.flow(x, i)


def swept(
    flow: ToyFlow, plans: list[Plan], keep: int, velocity: Any = None, **options: Any
) -> tuple[dict[str, Tensor], list[SweepReport]]:
    """The sum of the plans' gradients over one rollout with so many graphs kept."""
    velocity = velocity or flow
    flow.zero_grad()
    kept = KeptGraphs(velocity, plans, keep)
    states = rollout(kept, flow.noise(), flow.sigmas, plans[0].stop)
    _, g = reward_gradient(toy_loss, read_reward_input(kept, states, plans[0]))
    reports = [
        adjoint_sweep(velocity, states, flow.sigmas, plan, g, kept=kept, **options)
        for plan in plans
    ]
    return gradients(flow), reports


@pytest.mark.parametrize("negative", ["joint", "detached"])
@pytest.mark.parametrize("keep", [1, 2, STEPS])
@pytest.mark.parametrize("name", PLANS)
def test_equals_autograd_through_the_whole_chain(
    name: str, keep: int, negative: Literal["joint", "detached"]
) -> None:
    flow, plan = ToyFlow(STEPS, negative=negative), PLANS[name]
    counted = Counted(flow)
    got, (report,) = swept(flow, [plan], keep, counted)
    _, expected = chain_gradients(flow, flow.noise(), flow.sigmas, plan)
    assert relative_error(got, expected) <= 1e-12
    plain, (swept_report,) = swept(flow, [plan], 0)
    assert all(torch.equal(got[n], plain[n]) for n in plain)  # to the bit
    # each step once, with gradient where it is kept; then those that are not kept once more
    kept = plan.visited[:keep]
    executed = len(plan.weights)
    assert counted.calls[:executed] == [(i, i in kept) for i in range(executed)]
    assert counted.calls[executed:] == [(i, True) for i in plan.visited[keep:]]
    assert [s.step for s in report.steps] == [s.step for s in swept_report.steps]
    assert [s.adjoint_norm for s in report.steps] == [s.adjoint_norm for s in swept_report.steps]
    assert all(s.rerun_error == 0.0 for s in report.steps if s.step in kept)


@pytest.mark.parametrize(
    "options",
    [
        {"step_loss": lambda i, x, v: 0.2 * (v**2).mean() + 0.1 * (x * v).mean()},
        {"options": SweepOptions(adjoint_limit=1.05)},
        {"options": SweepOptions(step_norm=0.5)},
    ],
    ids=["step loss", "adjoint limit", "step norm"],
)
@pytest.mark.parametrize("name", ["whole_chain", "spaced_damped", "drtune_early_on_stop"])
def test_every_option_of_the_sweep_takes_kept_steps(name: str, options: dict[str, Any]) -> None:
    flow = ToyFlow(STEPS)
    parameters = {"parameters": list(flow.parameters())}
    plain, (by_rerun,) = swept(flow, [PLANS[name]], 0, **parameters, **options)
    bare, _ = swept(flow, [PLANS[name]], 0)
    for keep in (1, STEPS):
        got, (report,) = swept(flow, [PLANS[name]], keep, **parameters, **options)
        assert all(torch.equal(got[n], plain[n]) for n in plain)
        norms = [s.gradient_norm for s in report.steps]
        assert norms == [s.gradient_norm for s in by_rerun.steps]
    if name != "drtune_early_on_stop" or "step_loss" in options:
        assert relative_error(plain, bare) > 1e-3  # the option does something


def test_several_plans_use_one_graph() -> None:
    """Overlapping plans, some of which send gradient through a state and some not."""
    flow = ToyFlow(STEPS)
    plans = [make((1, 3, 5), nested=1.0), make((3, 5), nested=0.0), make((0, 3, 6), nested=0.4)]
    expected = {name: torch.zeros_like(p) for name, p in flow.named_parameters()}
    for plan in plans:
        for name, gradient in chain_gradients(flow, flow.noise(), flow.sigmas, plan)[1].items():
            expected[name] += gradient
    for keep in (1, 4, STEPS):
        counted = Counted(flow)
        got, _ = swept(flow, plans, keep, counted)
        assert relative_error(got, expected) <= 1e-12
        visited = sorted({i for plan in plans for i in plan.visited}, reverse=True)
        again = [i for plan in plans for i in plan.visited if i not in visited[:keep]]
        assert [i for i, _ in counted.calls[STEPS:]] == again


def test_kept_steps_are_swept_alone_and_others_together() -> None:
    flow = ToyFlow(STEPS)
    groups: list[list[int]] = []

    def many(xs: Any, group: Any) -> list[Tensor]:
        groups.append(list(group))
        return [flow(x, i) for x, i in zip(xs, group, strict=True)]

    plan = make((0, 1, 2, 4, 6), nested=0.0)
    options = SweepOptions(at_once=2, many=many)
    got, _ = swept(flow, [plan], 2, options=options)
    assert groups == [[2, 1]]  # 6 and 4 are kept, 0 is left alone
    _, expected = chain_gradients(flow, flow.noise(), flow.sigmas, plan)
    assert relative_error(got, expected) <= 1e-12


def test_a_kept_step_needs_a_gradient_too() -> None:
    flow = ToyFlow(STEPS).requires_grad_(False)
    plan = PLANS["drtune_end"]
    kept = KeptGraphs(flow, [plan], 1)
    states = rollout(kept, flow.noise(), flow.sigmas, STEPS)
    g = torch.ones_like(states[0])
    with pytest.raises(TuningError, match="velocity of step 4 carries no gradient"):
        adjoint_sweep(flow, states, flow.sigmas, plan, g, kept=kept)


@pytest.mark.parametrize("nested", [0.0, 1.0])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_memory_is_that_of_the_kept_graphs(
    generator: Generator, nested: float, checkpointed: bool
) -> None:
    """Bytes held for backward: n graphs, not more, and none once the sweep has used them."""
    sigmas = sigma_table(6).double()
    velocity = golden_velocity(generator, sigmas, "joint")
    plan = Plan(6, 6, "end", (2, 3, 4, 5), chain_weights(sigmas), nested)
    if checkpointed:
        generator.transformer.enable_gradient_checkpointing()
    held, found = {}, []
    try:
        for keep in (0, 1, 2, 4):
            generator.transformer.zero_grad()
            with LiveBytes(generator.transformer.parameters()) as memory:
                kept = KeptGraphs(velocity, [plan], keep)
                states = rollout(kept, model.NOISE.double(), sigmas, 6)
                held[keep] = memory.now
                _, g = reward_gradient(model.loss_fn, states[-1])
                adjoint_sweep(velocity, states, sigmas, plan, g, kept=kept)
                del kept
            assert not memory.live
            if not checkpointed:  # a recomputed block adds its own
                assert memory.peak <= 1.1 * max(held[keep], held.get(1, memory.peak))
            named = generator.transformer.named_parameters()
            found.append({n: p.grad.clone() for n, p in named if p.grad is not None})
    finally:
        generator.transformer.disable_gradient_checkpointing()
    assert held[0] == 0
    assert 1.9 * held[1] < held[2] < 2.1 * held[1]
    assert 3.8 * held[1] < held[4] < 4.2 * held[1]
    assert all(relative_error(other, found[0]) <= 1e-12 for other in found[1:])
