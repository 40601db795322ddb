"""FlowBP-Lagrange: its three parts and its leaps."""

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
    seeded,
)

flowbp_lagrange = partial(make_plan, "flowbp_lagrange")


def test_lagrange_draws_three_parts_and_its_leaps_cover_the_way() -> None:
    generator, sigmas = seeded(), sigma_table(25)
    parts = []
    for _ in range(1500):
        plan = flowbp_lagrange(generator, sigmas)
        first, second = plan.leaps
        parts.append((24 - second.start, second.start - first.start, first.start + 1))
        assert (first.end, second.end) == (second.start, 25)
        for leap in plan.leaps:
            assert leap.steps[:1] == (leap.start,)
            assert leap.steps[-1] == leap.end - 1
            way = float(sigmas[leap.end]) - float(sigmas[leap.start])
            assert sum(leap.weights) == pytest.approx(way)
        assert set(plan.active) <= {*first.steps[:2], *second.steps[:2]}
        assert (plan.through, plan.nested, plan.gradient_scale) == ((second.start,), 0.1, 1.0)
    means = torch.tensor(parts, dtype=torch.float64).mean(dim=0) / 25
    # of a Dirichlet distribution: a / (a + b + c); standard error 0.004
    expected = torch.tensor([2.5, 6.0, 2.0], dtype=torch.float64) / 10.5
    torch.testing.assert_close(means, expected, atol=0.015, rtol=0)
    capped = [flowbp_lagrange(generator, sigmas, longest_last_leap=4) for _ in range(200)]
    assert {25 - plan.leaps[1].start for plan in capped} == {2, 3, 4}
    late = [flowbp_lagrange(generator, sigmas, tail=0.7) for _ in range(200)]
    assert min(plan.active[0] for plan in late) == 7  # the last 18 of 25
    pairs = Counter(
        tuple(leap.start for leap in flowbp_lagrange(generator, mu, concentration=None).leaps)
        for mu in [sigma_table(6)]
        for _ in range(3000)
    )
    assert len(pairs) == 15
    assert all(140 <= count <= 260 for count in pairs.values())
    both = flowbp_lagrange(generator, sigmas, concentration=None, longest_last_leap=3, tail=0.2)
    assert 20 <= both.leaps[0].start < both.leaps[1].start <= 24


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"active_steps": 4}, r"active_steps is 4; allowed is 1 \.\.\. method\.order = 3"),
        ({"second_share": 1.5}, r"second_share is 1\.5"),
        ({"concentration": (1.0, 0.0, 1.0)}, r"concentration is \[1\.0, 0\.0, 1\.0\]"),
        ({"longest_last_leap": 1}, "longest_last_leap is 1"),
        ({"tail": 0.0}, r"tail is 0\.0"),
    ],
)
def test_lagrange_refuses_what_it_cannot_draw(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TuningError, match=said):
        flowbp_lagrange(seeded(), sigma_table(8), **options)
    with pytest.raises(TuningError, match=r"sampling\.steps is 2; flowbp_lagrange needs 3"):
        flowbp_lagrange(seeded(), torch.tensor([1.0, 0.5, 0.0]))
