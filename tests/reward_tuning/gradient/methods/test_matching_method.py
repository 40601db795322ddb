"""The plan of the methods that match clips, and that they have no other on a rollout."""

from __future__ import annotations

import pytest

from base_model.sampling.sigmas import sigma_table
from reward_tuning.errors import TuningError
from reward_tuning.gradient.methods import METHODS, make_plan
from reward_tuning.gradient.plan import chain_weights
from tests.reward_tuning.gradient.methods.checks import seeded

MATCHING = [kind for kind, method in METHODS.items() if method.matches]


def test_which_they_are() -> None:
    assert MATCHING == ["awm", "nft"]


@pytest.mark.parametrize("kind", MATCHING)
def test_the_plan_reaches_the_end_and_sweeps_nothing(kind: str) -> None:
    plan = make_plan(kind, seeded(), sigma_table(8), draws=3)
    assert (plan.steps, plan.stop, plan.reward_input) == (8, 8, "end")
    assert plan.weights == chain_weights(sigma_table(8))
    assert (plan.active, plan.visited, plan.matched) == ((), (), 3)
    assert not plan.reads_end


@pytest.mark.parametrize("kind", MATCHING)
def test_their_reasons_name_them(kind: str) -> None:
    method = METHODS[kind].model_validate({"kind": kind})
    for reason in (method.not_at_end, method.one_plan_only):
        assert reason.startswith(f"method {kind} ")


@pytest.mark.parametrize("within", [(0.5, 0.5), (-0.1, 0.5), (0.5, 1.1), (0.9, 0.1)])
def test_ranges_of_levels_that_are_none(within: tuple[float, float]) -> None:
    with pytest.raises(TuningError, match=r"needed is 0 <= low < high <= 1"):
        make_plan("awm", seeded(), sigma_table(8), sigma_range=within)
