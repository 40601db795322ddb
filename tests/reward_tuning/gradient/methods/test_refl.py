"""ReFL: one late step, read at its posterior mean."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from base_model.sampling.sigmas import sigma_table
from reward_tuning.errors import TuningError
from reward_tuning.gradient.methods import make_plan
from tests.reward_tuning.gradient.methods.checks import (
    check_autograd_of_the_chain,
    check_plans_of_the_table,
    seeded,
)

refl = partial(make_plan, "refl")
OPTIONS: list[dict[str, Any]] = [{}, {"stop_range": 1.0}]


@pytest.mark.parametrize("options", OPTIONS)
def test_every_draw_is_a_plan_of_the_table(options: dict[str, Any]) -> None:
    check_plans_of_the_table("refl", **options)


@pytest.mark.parametrize("options", OPTIONS)
def test_gradient_equals_autograd_of_its_own_chain(options: dict[str, Any]) -> None:
    check_autograd_of_the_chain("refl", **options)


def test_refl_trains_one_late_step_on_its_posterior_mean() -> None:
    generator, sigmas = seeded(), sigma_table(40)
    plans = [refl(generator, sigmas) for _ in range(1000)]
    assert {p.stop for p in plans} == set(range(30, 40))  # U{30 ... 39} of 40, as published
    for plan in plans:
        assert plan.active == plan.visited == (plan.stop,)
        assert plan.weights[plan.stop] == pytest.approx(-float(sigmas[plan.stop]))
        assert (plan.nested, plan.gradient_scale) == (0.0, 1.0)


def test_refusals() -> None:
    sigmas = sigma_table(10)
    with pytest.raises(TuningError, match=r"stop_range is 0"):
        refl(seeded(), sigmas, stop_range=0.0)
