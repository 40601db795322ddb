"""NaN and infinity: named when skipped, and the end of a run after too many in a row."""

import math

import pytest

from reward_tuning.runs.guards.non_finite import NonFinite
from tests.reward_tuning.runs.guards.steps import Counts, facts


@pytest.mark.parametrize(
    ("loss", "norm", "told"),
    [
        (0.5, 2.0, None),
        (math.nan, math.nan, "step 7 skipped: the loss is nan"),
        (-math.inf, 1.0, "step 7 skipped: the loss is -inf"),
        (0.5, math.inf, "step 7 skipped: the gradient's norm is inf"),
    ],
)
def test_it_names_what_is_not_finite(loss: float, norm: float, told: str | None) -> None:
    assert NonFinite(5).warn(facts(norm, loss=loss)) == told


def test_it_ends_the_run_after_too_many_in_a_row() -> None:
    guard = NonFinite(3)
    assert guard.stop(Counts(9, bad_steps=8, bad_in_a_row=2)) is None
    told = guard.stop(Counts(9, bad_steps=3, bad_in_a_row=3))
    assert str(told).startswith("3 steps in a row (up to step 9) gave NaN or infinity")
    assert "train.max_bad_steps allows 3. Lower train.learning_rate" in str(told)
