"""DRTune: its spacing, its early stop and its repeatable draws."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch

from base_model.sampling.sigmas import sigma_table
from reward_tuning.errors import TuningError
from reward_tuning.gradient.methods import make_plan
from reward_tuning.gradient.plan import Plan
from tests.reward_tuning.gradient.methods.checks import (
    check_autograd_of_the_chain,
    check_plans_of_the_table,
    seeded,
)

drtune = partial(make_plan, "drtune")
OPTIONS: list[dict[str, Any]] = [{"active_steps": 3}, {"active_steps": 2, "early_stop": False}]


@pytest.mark.parametrize("options", OPTIONS)
def test_every_draw_is_a_plan_of_the_table(options: dict[str, Any]) -> None:
    check_plans_of_the_table("drtune", **options)


@pytest.mark.parametrize("options", OPTIONS)
def test_gradient_equals_autograd_of_its_own_chain(options: dict[str, Any]) -> None:
    check_autograd_of_the_chain("drtune", **options)


def draws(number: int, steps: int, **options: object) -> list[Plan]:
    generator = seeded()
    return [drtune(generator, sigma_table(steps), **options) for _ in range(number)]


def test_drtune_follows_the_published_spacing() -> None:
    stops: Counter[int] = Counter()
    for plan in draws(600, 25, active_steps=3):
        s = plan.stop
        stops[s] += 1
        assert plan.reward_input == "posterior_mean"
        assert plan.nested == 0.0
        assert len(plan.weights) == s + 1
        stride = plan.active[1] - plan.active[0]
        assert plan.active == (plan.active[0], plan.active[0] + stride, plan.active[0] + 2 * stride)
        if s < 24:  # at s = 24 the stop step itself has weight 0.0027 and is left out
            assert stride == (s + 1) // 3
            assert plan.active[-1] <= s
        else:
            assert stride == 8
            assert plan.active[-1] <= 23
    assert set(stops) == set(range(15, 25))  # N - U{1 ... 10}
    # each stop has probability 1/10: 60 of 600, standard deviation 7.3
    assert all(30 <= count <= 90 for count in stops.values())


def test_drtunes_stop_range_is_rounded_as_published() -> None:
    # int(round(0.4 * 9)) = 4 in FlowBP's trainer: stops 5 ... 8
    assert {plan.stop for plan in draws(300, 9, active_steps=2)} == {5, 6, 7, 8}
    assert {plan.stop for plan in draws(50, 9, active_steps=2, stop_range=0.05)} == {8}


def test_drtune_reaches_every_step_and_the_stop_step() -> None:
    plans = draws(600, 16, active_steps=4)
    touched = {i for plan in plans for i in plan.active}
    assert touched == set(range(15))
    on_stop = [plan for plan in plans if plan.active[-1] == plan.stop]
    assert on_stop
    for plan in on_stop:
        assert plan.weights[plan.stop] == pytest.approx(-float(sigma_table(16)[plan.stop]))


def test_drtune_offsets_are_uniform() -> None:
    # s + 1 executed steps, stride (s + 1) // 2: offsets 0 ... s - stride, all equally likely
    plans = [p for p in draws(3000, 10, active_steps=2) if p.stop == 7]
    offsets = Counter(p.active[0] for p in plans)
    assert set(offsets) == {0, 1, 2, 3}
    expected = len(plans) / 4
    assert all(abs(count - expected) < 4 * expected**0.5 for count in offsets.values())


def test_drtune_without_early_stop_reads_the_end() -> None:
    for plan in draws(200, 16, active_steps=5, early_stop=False):
        assert (plan.stop, plan.reward_input) == (16, "end")
        assert plan.active[-1] <= 14  # never the step of |d| = 0.0027
        assert {b - a for a, b in zip(plan.active, plan.active[1:], strict=False)} == {3}
    assert {p.active for p in draws(200, 16, active_steps=5, early_stop=False)} == {
        tuple(range(o, 15, 3)) for o in range(3)
    }


def test_the_rescale_carries_the_whole_chain() -> None:
    for plan in draws(50, 16, active_steps=4):
        carried = plan.gradient_scale * sum(abs(plan.weights[i]) for i in plan.active)
        assert carried == pytest.approx(1.0, rel=1e-6)  # the weights of a chain sum to s_0 = 1


def test_plans_repeat_with_their_generator_and_draw_alike() -> None:
    sigmas = sigma_table(16)
    first, second = seeded(3), seeded(3)
    a = [make_plan("drtune", first, sigmas, active_steps=4) for _ in range(20)]
    b = [make_plan("drtune", second, sigmas, active_steps=4) for _ in range(20)]
    assert a == b
    assert len(set(a)) > 10
    # The stream moves by the same amount whatever the options: later plans stay comparable.
    make_plan("drtune", first, sigmas, active_steps=1, early_stop=False)
    make_plan("drtune", second, sigmas, active_steps=4)
    assert torch.equal(first.get_state(), second.get_state())


def test_refusals() -> None:
    sigmas = sigma_table(10)
    # m = 4: the earliest stop is 6, seven executed steps. Refused whatever the draw is.
    for seed in range(20):
        with pytest.raises(TuningError, match=r"a stop at step 6 allowed is 1 \.\.\. 7"):
            drtune(seeded(seed), sigmas, active_steps=8)
        assert len(drtune(seeded(seed), sigmas, active_steps=7).active) == 7
    with pytest.raises(TuningError, match="stop_range is 1"):
        drtune(seeded(), sigmas, active_steps=2, stop_range=1.0)
    with pytest.raises(TuningError, match="smallest_step is -1"):
        drtune(seeded(), sigmas, active_steps=2, smallest_step=-1.0)
