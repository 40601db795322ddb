"""DRaFT-K: the last K steps that matter."""

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

draft_k = partial(make_plan, "draft_k")
OPTIONS: list[dict[str, Any]] = [{"active_steps": 3}, {"active_steps": 1, "smallest_step": 0.0}]


@pytest.mark.parametrize("options", OPTIONS)
def test_every_draw_is_a_plan_of_the_table(options: dict[str, Any]) -> None:
    check_plans_of_the_table("draft_k", **options)


@pytest.mark.parametrize("options", OPTIONS)
def test_gradient_equals_autograd_of_its_own_chain(options: dict[str, Any]) -> None:
    check_autograd_of_the_chain("draft_k", **options)


def test_draft_k_counts_from_the_last_step_that_matters() -> None:
    plan = draft_k(seeded(), sigma_table(25), active_steps=3)
    # 24 is the step of |d| = 0.0027; 21, 22, 23 are the last three that matter
    assert plan.active == (21, 22, 23, 24)
    assert (plan.steps, plan.stop, plan.reward_input) == (25, 25, "end")
    assert (plan.nested, plan.rescale) == (1.0, 1.0)
    carried = sum(abs(plan.weights[i]) for i in plan.active)
    assert carried > 0.2
    assert plan.gradient_scale == pytest.approx(1 / carried)


def test_draft_k_as_in_the_paper_when_every_step_counts() -> None:
    plan = draft_k(seeded(), sigma_table(25), active_steps=1, smallest_step=0.0, rescale=0.0)
    assert plan.active == (24,)
    assert abs(plan.weights[24]) == pytest.approx(0.00271, abs=1e-5)
    assert plan.gradient_scale == 1.0
    everything = draft_k(seeded(), sigma_table(25), active_steps=24)
    assert everything.active == tuple(range(25))


def test_refusals() -> None:
    sigmas = sigma_table(10)
    with pytest.raises(TuningError, match=r"active_steps is 10.* 1 \.\.\. 9"):
        draft_k(seeded(), sigmas, active_steps=10)
    with pytest.raises(TuningError, match="active_steps is 0"):
        draft_k(seeded(), sigmas, active_steps=0)
