"""PRFL: the noisy state after one step."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest
import torch

from base_model.sampling.sigmas import sigma_table
from reward_tuning.errors import TuningError
from reward_tuning.gradient.methods import make_plan
from tests.reward_tuning.gradient.methods.checks import (
    check_autograd_of_the_chain,
    check_plans_of_the_table,
    seeded,
)

prfl = partial(make_plan, "prfl")
OPTIONS: list[dict[str, Any]] = [{}, {"step_range": (0.5, 1.0)}]


@pytest.mark.parametrize("options", OPTIONS)
def test_every_draw_is_a_plan_of_the_table(options: dict[str, Any]) -> None:
    check_plans_of_the_table("prfl", **options)


@pytest.mark.parametrize("options", OPTIONS)
def test_gradient_equals_autograd_of_its_own_chain(options: dict[str, Any]) -> None:
    check_autograd_of_the_chain("prfl", **options)


def test_prfl_reads_the_noisy_state_after_one_step_anywhere() -> None:
    generator, sigmas = seeded(), sigma_table(9)
    drawn: Counter[int] = Counter()
    for _ in range(1600):
        plan = prfl(generator, sigmas)
        (step,) = plan.active
        drawn[step] += 1
        assert (plan.stop, plan.reward_input, plan.visited) == (step + 1, "state", (step,))
        assert plan.weights[step] == pytest.approx(float(sigmas[step + 1] - sigmas[step]))
    assert set(drawn) == set(range(8))  # the last step's end is no noisy state
    assert all(140 <= count <= 260 for count in drawn.values())
    late = {prfl(generator, sigmas, step_range=(0.5, 1.0)).active[0] for _ in range(200)}
    assert late == {4, 5, 6, 7}
    with pytest.raises(TuningError, match=r"step_range is \[0\.5, 0\.5\]"):
        prfl(seeded(), sigmas, step_range=(0.5, 0.5))
    with pytest.raises(TuningError, match=r"sampling\.steps is 1"):
        prfl(seeded(), torch.tensor([1.0, 0.0]))
