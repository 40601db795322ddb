"""EasyAnimate's strategies, step for step as in the script."""

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

easyanimate = partial(make_plan, "easyanimate")
OPTIONS: list[dict[str, Any]] = [
    {"active_steps": 3},
    {"strategy": "last"},
    {"strategy": "uniform", "active_steps": 3},
    {"strategy": "random", "active_steps": 3, "stop_input_gradient": True},
    {"steps_list": [5, 1, 2]},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_every_draw_is_a_plan_of_the_table(options: dict[str, Any]) -> None:
    check_plans_of_the_table("easyanimate", **options)


@pytest.mark.parametrize("options", OPTIONS)
def test_gradient_equals_autograd_of_its_own_chain(options: dict[str, Any]) -> None:
    check_autograd_of_the_chain("easyanimate", **options)


def test_easyanimates_strategies_are_the_scripts() -> None:
    generator, sigmas = seeded(), sigma_table(50)
    assert easyanimate(generator, sigmas, strategy="last").active == (49,)
    assert easyanimate(generator, sigmas).active == tuple(range(40, 50))
    starts = set()
    for _ in range(300):
        active = easyanimate(generator, sigmas, strategy="uniform", active_steps=5).active
        starts.add(active[0])
        # start in 0 ... 10, both included; from 10 the fifth lies at 50 and is never run
        whole = [active[0] + 10 * i for i in range(5)]
        assert list(active) == [i for i in whole if i < 50]
    assert starts == set(range(11))
    for _ in range(100):
        plan = easyanimate(
            generator, sigmas, strategy="random", active_steps=4, first_step=20, last_step=29
        )
        assert len(set(plan.active)) == 4
        assert set(plan.active) <= set(range(20, 30))
        assert (plan.nested, plan.through, plan.gradient_scale) == (1.0, plan.active, 1.0)
    assert easyanimate(generator, sigmas, stop_input_gradient=True).nested == 0.0
    listed = easyanimate(generator, sigmas, strategy="last", steps_list=[40, 3, 49])
    assert (listed.active, listed.through, listed.nested) == ((3, 40, 49), (3, 40, 49), 1.0)
    with pytest.raises(TuningError, match=r"steps_list\.0 is -1; must be greater"):
        easyanimate(generator, sigmas, steps_list=[-1, 2])
    for wrong in ([], [3, 3], [50]):
        with pytest.raises(TuningError, match=r"steps_list is .* distinct steps of 0 \.\.\. 49"):
            easyanimate(generator, sigmas, steps_list=wrong)
    lonely = {
        easyanimate(seeded(i), sigmas, strategy="uniform", active_steps=1).active
        for i in range(300)
    }
    assert (49,) in lonely


def test_refusals() -> None:
    sigmas = sigma_table(10)
    with pytest.raises(TuningError, match="strategy is 'head'"):
        easyanimate(seeded(), sigmas, strategy="head", active_steps=2)
    with pytest.raises(TuningError, match=r"active_steps is 4; allowed is 1 \.\.\. 3"):
        easyanimate(seeded(), sigmas, strategy="random", active_steps=4, first_step=2, last_step=4)
    with pytest.raises(TuningError, match=r"first_step and last_step are 0 and 10; .* 0 \.\.\. 9"):
        easyanimate(seeded(), sigmas, strategy="random", active_steps=4, last_step=10)
