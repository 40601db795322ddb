"""The warning about clipping at nearly every step."""

import math

import pytest

from reward_tuning.runs.guards.clipping import CLIPPING_STEPS, Clipping
from tests.reward_tuning.runs.guards.steps import facts


def test_it_warns_once() -> None:
    guard = Clipping(0.5)
    told = [guard.warn(facts(2.0)) for _ in range(3 * CLIPPING_STEPS)]
    assert [i for i, text in enumerate(told) if text] == [CLIPPING_STEPS - 1]
    assert "max_grad_norm = 0.5" in str(told[CLIPPING_STEPS - 1])


@pytest.mark.parametrize("limit", [None, 0.5])
def test_clipping_now_and_then_is_no_warning(limit: float | None) -> None:
    guard = Clipping(limit)
    norms = (0.1 if limit and i % 10 == 0 else 2.0 for i in range(60))
    assert not any(guard.warn(facts(norm)) for norm in norms)


def test_a_skipped_step_is_not_a_clipped_one() -> None:
    guard = Clipping(0.5)
    assert not any(guard.warn(facts(math.inf)) for _ in range(3 * CLIPPING_STEPS))
