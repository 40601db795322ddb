"""What a guard sees of a step, and a rule that overrides nothing."""

import math

import pytest

from reward_tuning.runs.guards.guard import Guard
from tests.reward_tuning.runs.guards.steps import Counts, facts


@pytest.mark.parametrize(
    ("norm", "loss", "idle"), [(0.0, 0.5, True), (1e-9, 0.5, False), (0.0, math.nan, False)]
)
def test_a_step_is_idle_where_it_was_taken_with_no_gradient(
    norm: float, loss: float, idle: bool
) -> None:
    assert facts(norm, loss=loss).idle == idle


def test_a_rule_may_leave_out_what_it_does_not_need() -> None:
    worst = Counts(3, bad_steps=3, bad_in_a_row=3, idle_steps=3)
    guard = Guard()
    assert (guard.warn(facts(math.nan)), guard.stop(worst), guard.reject(worst)) == (None,) * 3
