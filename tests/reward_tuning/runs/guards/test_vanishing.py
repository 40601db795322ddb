"""The warning about a vanishing gradient."""

import math

from reward_tuning.runs.guards.vanishing import VANISHING_STEPS, Vanishing
from tests.reward_tuning.runs.guards.steps import facts


def test_it_warns_once() -> None:
    guard = Vanishing()
    told = [guard.warn(facts(5e-4)) for _ in range(VANISHING_STEPS * 3)]
    assert [i for i, text in enumerate(told) if text] == [VANISHING_STEPS - 1]
    assert "method.rescale=1" in str(told[VANISHING_STEPS - 1])


def test_a_single_small_gradient_is_no_warning() -> None:
    guard = Vanishing()
    told = [guard.warn(facts(1e-4 if i % VANISHING_STEPS else 1e-2)) for i in range(30)]
    assert told == [None] * 30


def test_a_gradient_of_zero_is_another_matter() -> None:
    guard = Vanishing()
    assert not any(guard.warn(facts(0.0)) for _ in range(3 * VANISHING_STEPS))


def test_a_skipped_step_neither_counts_nor_interrupts() -> None:
    guard = Vanishing()
    norms = [5e-4] * (VANISHING_STEPS - 1) + [math.inf, 5e-4]
    told = [guard.warn(facts(norm)) for norm in norms]
    assert [i for i, text in enumerate(told) if text] == [VANISHING_STEPS]
