"""The FlowBP family, LeapAlign, DRTune, ReFL and DRaFT-LV against runs of FlowBP's own trainers.

`cases/flowbp_gradients.safetensors` holds what their code (93b220a) gave on the toy flow, in
float64; `official_gradients.py` made it and says how.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from reward_tuning.gradient.engine import adjoint_sweep, read_renoised, read_reward_input, rollout
from reward_tuning.gradient.leaps import leap_likeness
from reward_tuning.gradient.losses import reward_gradient
from reward_tuning.gradient.methods import make_plan
from reward_tuning.gradient.plan import Plan
from tests.reward_tuning.toy_flow import SHAPE, ToyFlow, relative_error, toy_loss

GOLDEN = Path(__file__).parents[1] / "cases" / "flowbp_gradients.safetensors"
STEPS = 8

# What a recipe says for each of the authors' configurations; they draw every step there is.
RECIPES: dict[str, dict[str, Any]] = {
    "sparse_flux1": {"kind": "flowbp_sparse", "active_steps": 3, "lateness": 2.0, "rescale": 1.0},
    "sparse_sd35": {"kind": "flowbp_sparse", "active_steps": 4, "lateness": 1.0, "rescale": 0.5},
    "sparse_flux2": {"kind": "flowbp_sparse", "active_steps": 4, "lateness": 2.0, "rescale": 0.0},
    "bridge_flux1": {"kind": "flowbp_bridge"},
    "bridge_sd35": {"kind": "flowbp_bridge", "nested": 0.5, "lateness": 4.0, "rescale": 0.0},
    "bridge_flux2": {
        "kind": "flowbp_bridge",
        "active_steps": 3,
        "nested": 1.0,
        "lateness": 4.0,
        "rescale": 0.5,
    },
    "lagrange_flux1": {"kind": "flowbp_lagrange"},
    "lagrange_sd35": {"kind": "flowbp_lagrange", "rescale": 0.0, "longest_last_leap": 4},
    "lagrange_flux2": {"kind": "flowbp_lagrange", "rescale": 0.0, "leap_floor": 0.1, "tail": 0.7},
    "leapalign": {"kind": "leapalign"},
    "drtune": {"kind": "drtune", "active_steps": 3, "rescale": 0.0},
    "refl": {"kind": "refl", "stop_range": 0.5},
    "draft_lv": {"kind": "draft_lv", "rescale": 0.0, "smallest_sigma": 0.001},
}


def load(case: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a trajectory drew with its loss, and its gradient by parameter."""
    with safe_open(GOLDEN, "pt") as file:
        drawn = json.loads(file.metadata()[case])
        names = [name for name in file.keys() if name.startswith(case + ".")]  # noqa: SIM118
        return drawn, {name.removeprefix(case + "."): file.get_tensor(name) for name in names}


def has_drawn(plan: Plan, drawn: dict[str, Any]) -> bool:
    """Whether a plan drew what the authors' code did."""
    names = ("active_indices", "selected_indices", "train_indices")
    steps = next((drawn[name] for name in names if name in drawn), None)
    if steps is not None and plan.active != tuple(sorted(steps)):
        return False
    if plan.leaps:
        starts = tuple(leap.start for leap in plan.leaps)
        return starts == (drawn["k_idx"], drawn["j_idx"])
    if "j_idx" in drawn:
        return plan.through == (drawn["j_idx"],)
    stop = drawn.get("early_stop_idx", drawn.get("selected_idx"))
    return stop is None or plan.stop == stop


def plan_of(config: str, drawn: dict[str, Any], sigmas: Tensor) -> Plan:
    options = dict(RECIPES[config])
    kind = options.pop("kind")
    if kind not in ("refl", "leapalign", "flowbp_lagrange"):
        options["smallest_step"] = 0.0
    generator = torch.Generator().manual_seed(0)
    for _ in range(20_000):
        plan = make_plan(kind, generator, sigmas, **options)
        if has_drawn(plan, drawn):
            return plan
    raise AssertionError(f"{config} never draws {drawn}")


@pytest.mark.parametrize("draw", [0, 1])
@pytest.mark.parametrize("config", [name for name in RECIPES if name != "draft_lv"])
def test_gradient_equals_that_of_the_authors_code(config: str, draw: int) -> None:
    flow = ToyFlow(STEPS)
    drawn, expected = load(f"{config}.{draw}")
    plan = plan_of(config, drawn, flow.sigmas)
    states = rollout(flow, flow.noise(), flow.sigmas, plan.stop)
    weights = torch.ones(SHAPE[0], dtype=torch.float64)
    if plan.leap_floor is not None:
        weights = leap_likeness(states, flow.sigmas, plan.leaps, plan.leap_floor)

    def loss_of(x: Tensor) -> Tensor:
        return torch.stack([w * toy_loss(clip) for w, clip in zip(weights, x, strict=True)]).mean()

    loss, g = reward_gradient(loss_of, read_reward_input(flow, states, plan))
    adjoint_sweep(flow, states, flow.sigmas, plan, g)
    got = {name: p.grad for name, p in flow.named_parameters() if p.grad is not None}
    assert float(loss) == pytest.approx(drawn["loss"], rel=1e-12)
    assert relative_error(got, expected) <= 1e-11


@pytest.mark.parametrize("draw", [0, 1])
def test_draft_lv_equals_the_authors_code_below_the_last_sigma(draw: int) -> None:
    """One loss over the chain's end and both looks, whose noise their code draws in turn."""
    flow = ToyFlow(STEPS)
    drawn, expected = load(f"draft_lv.{draw}")
    plan = plan_of("draft_lv", drawn, flow.sigmas)
    states = rollout(flow, flow.noise(), flow.sigmas, STEPS)
    loss, g = reward_gradient(toy_loss, states[-1])
    adjoint_sweep(flow, states, flow.sigmas, plan, g / 3)
    losses = [loss]
    noises = torch.Generator().manual_seed(draw)

    def at_last(x: Tensor, i: int) -> Tensor:  # a look's table begins at the rollout's last sigma
        return flow(x, STEPS - 1)

    for look in plan.renoised:
        assert look.sigma == float(flow.sigmas[-2])
        noise = torch.randn(SHAPE, generator=noises, dtype=torch.float64)
        state, x = read_renoised(at_last, states, noise, look)
        loss, g = reward_gradient(toy_loss, x)
        adjoint_sweep(at_last, [state], flow.sigmas[-2:], plan.look(look), g / 3)
        losses.append(loss)
    got = {name: p.grad for name, p in flow.named_parameters() if p.grad is not None}
    assert float(torch.stack(losses).mean()) == pytest.approx(drawn["loss"], rel=1e-12)
    assert relative_error(got, expected) <= 1e-11
