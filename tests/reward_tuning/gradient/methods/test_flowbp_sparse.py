"""FlowBP-Sparse: the law of its draw."""

from __future__ import annotations

from collections import Counter
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

flowbp_sparse = partial(make_plan, "flowbp_sparse")
OPTIONS: list[dict[str, Any]] = [{"active_steps": 3}, {"active_steps": 1, "lateness": 0.0}]


@pytest.mark.parametrize("options", OPTIONS)
def test_every_draw_is_a_plan_of_the_table(options: dict[str, Any]) -> None:
    check_plans_of_the_table("flowbp_sparse", **options)


@pytest.mark.parametrize("options", OPTIONS)
def test_gradient_equals_autograd_of_its_own_chain(options: dict[str, Any]) -> None:
    check_autograd_of_the_chain("flowbp_sparse", **options)


def test_flowbp_sparse_prefers_late_steps_by_its_law() -> None:
    generator, sigmas = seeded(), sigma_table(10)
    drawn = Counter(flowbp_sparse(generator, sigmas, active_steps=1).active[0] for _ in range(9000))
    total = sum((i + 1) ** 2 for i in range(9))
    for i in range(9):
        expected = 9000 * (i + 1) ** 2 / total
        assert abs(drawn[i] - expected) < 4.5 * expected**0.5 + 1, i
    assert drawn[9] == 0  # |d| = 0.0027
    for _ in range(100):
        plan = flowbp_sparse(generator, sigmas, active_steps=3)
        assert len(plan.active) == 3
        assert plan.gradient_scale * sum(abs(plan.weights[i]) for i in plan.active) == (
            pytest.approx(1.0, rel=1e-6)
        )


def test_refusals() -> None:
    sigmas = sigma_table(10)
    with pytest.raises(TuningError, match=r"lateness is -0\.5"):
        flowbp_sparse(seeded(), sigmas, active_steps=2, lateness=-0.5)
    with pytest.raises(TuningError, match=r"active_steps is 10.* 1 \.\.\. 9"):
        flowbp_sparse(seeded(), sigmas, active_steps=10)
