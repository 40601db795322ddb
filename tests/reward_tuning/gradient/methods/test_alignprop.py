"""AlignProp: the law of its tail's length."""

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

alignprop = partial(make_plan, "alignprop")
OPTIONS: list[dict[str, Any]] = [{}, {"truncation": "uniform"}]


@pytest.mark.parametrize("options", OPTIONS)
def test_every_draw_is_a_plan_of_the_table(options: dict[str, Any]) -> None:
    check_plans_of_the_table("alignprop", **options)


@pytest.mark.parametrize("options", OPTIONS)
def test_gradient_equals_autograd_of_its_own_chain(options: dict[str, Any]) -> None:
    check_autograd_of_the_chain("alignprop", **options)


def test_alignprop_draws_every_tail_alike_or_around_its_cutoff() -> None:
    sigmas, generator = sigma_table(11), seeded()  # ten steps that matter, and the short last one
    uniform = Counter(
        len(alignprop(generator, sigmas, truncation="uniform").active) - 1 for _ in range(1800)
    )
    assert set(uniform) == set(range(1, 10))  # the cut-off is drawn from 1 ... 9 of 10
    # 200 each, standard deviation 13.3
    assert all(140 <= count <= 260 for count in uniform.values())
    for plan in (alignprop(generator, sigmas) for _ in range(50)):
        assert plan.active == tuple(range(plan.active[0], 11))
        assert (plan.nested, plan.reward_input) == (1.0, "end")


def test_alignprops_cutoff_is_floored_and_drawn_again_as_published() -> None:
    """`int(Normal(42, 5).sample())` until it lies in 1 ... 49 of 50 steps, drawn here by hand."""
    sigmas, generator = torch.linspace(1.0, 0.0, 51), seeded(1)
    ours = Counter(50 - len(alignprop(generator, sigmas).active) for _ in range(4000))
    theirs: Counter[int] = Counter()
    normal = torch.randn(200_000, generator=seeded(2), dtype=torch.float64)
    for cutoff in (42 + 5 * normal).tolist():
        if 1 <= int(cutoff) < 50:
            theirs[int(cutoff)] += 1
    total = sum(theirs.values())
    assert theirs[49] / total == pytest.approx(0.028, abs=0.002)  # K = 1
    for cutoff in range(1, 50):
        expected = 4000 * theirs[cutoff] / total
        assert abs(ours[cutoff] - expected) < 4.5 * expected**0.5 + 2, cutoff
    assert alignprop(generator, torch.tensor([1.0, 0.0])).active == (0,)
    assert alignprop(generator, torch.tensor([1.0, 0.5, 0.0])).active == (1,)


def test_refusals() -> None:
    sigmas = sigma_table(10)
    with pytest.raises(TuningError, match="truncation is 'normal'"):
        alignprop(seeded(), sigmas, truncation="normal")
