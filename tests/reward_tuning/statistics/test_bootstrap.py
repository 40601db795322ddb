"""Paired intervals, against enumeration, normal theory, Student's table and exact sums."""

import itertools
import math

import numpy as np
import pytest

from reward_tuning.errors import TuningError
from reward_tuning.statistics.bootstrap import paired_difference, tail


def test_equals_the_enumeration_of_all_resamples() -> None:
    """All 6^6 resamples of six differences, each as likely as the other."""
    base = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    tuned = [0.5, 0.9, 2.6, 3.1, 5.3, 5.2]
    difference = np.array(tuned) - np.array(base)
    mean, low, high = ends_of_all_resamples(difference)
    found = paired_difference(base, tuned, seed=1)
    assert found.mean == pytest.approx(mean)
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)
    assert paired_difference(tuned, base, seed=1).low == pytest.approx(-high, abs=0.02)


def ends_of_all_resamples(difference: np.ndarray) -> tuple[float, float, float]:
    """Mean, and the further of percentile and studentised ends."""
    n, mean = len(difference), float(difference.mean())
    draws = difference[np.array(list(itertools.product(range(n), repeat=n)))]
    means, errors = draws.mean(axis=1), draws.std(axis=1, ddof=1) / np.sqrt(n)
    low, high = np.percentile(means, [100 * tail(n), 100 - 100 * tail(n)])
    t = np.percentile((means - mean)[errors > 0] / errors[errors > 0], [2.5, 97.5])
    ends = mean - t[::-1] * difference.std(ddof=1) / np.sqrt(n)
    return mean, min(low, ends[0]), max(high, ends[1])


def test_approaches_normal_theory() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=400)
    tuned = base + rng.normal(0.3, 0.5, size=400)
    difference = tuned - base
    half = 1.96 * difference.std(ddof=1) / np.sqrt(400)
    found = paired_difference(base.tolist(), tuned.tolist())
    assert found.low == pytest.approx(difference.mean() - half, abs=0.05 * half)
    assert found.high == pytest.approx(difference.mean() + half, abs=0.05 * half)


def test_pairs_stay_together() -> None:
    """Prompts differ a lot, the gain is the same for each: the interval has no width."""
    base = [float(i) for i in range(32)]
    found = paired_difference(base, [value + 0.25 for value in base])
    assert (found.mean, found.low, found.high) == pytest.approx((0.25, 0.25, 0.25))


def test_the_interval_covers_the_truth_nineteen_times_of_twenty() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for trial in range(300):
        sample = rng.normal(0.1, 1.0, size=64)
        found = paired_difference([0.0] * 64, sample.tolist(), seed=trial, resamples=1000)
        hits += found.low <= 0.1 <= found.high
    assert 0.90 <= hits / 300 <= 0.98


@pytest.mark.parametrize(("n", "t"), [(8, 2.365), (16, 2.131), (31, 2.042), (121, 1.980)])
def test_few_prompts_have_the_interval_of_students_t(n: int, t: float) -> None:
    """Against the table: the resampled deviation, corrected, times t."""
    found = paired_difference([0.0] * 2, [1.0, 2.0])
    assert found.low == 0.0  # two prompts show nothing
    z = -math.sqrt((n - 1) / n) * _normal_quantile(tail(n))
    assert z == pytest.approx(t, abs=1.5e-3)


def _normal_quantile(share: float) -> float:
    """By bisection of the error function."""
    low, high = -9.0, 9.0
    for _ in range(80):
        middle = (low + high) / 2
        below = 0.5 * math.erfc(-middle / math.sqrt(2))
        low, high = (middle, high) if below < share else (low, middle)
    return low


def test_right_or_wrong_is_told_exactly() -> None:
    base = [1.0] * 124 + [1.0] * 4
    tuned = [1.0] * 124 + [0.0] * 4
    found = paired_difference(base, tuned)
    assert found.mean == -4 / 128
    assert found.low < -4 / 128 < 0.0 < found.high
    same = paired_difference([1.0] * 32, [1.0] * 32)
    # of 32 prompts none changed: a share below 1 - 0.025^(1 / 32) may still do
    assert (same.low, same.high) == pytest.approx((-0.1089, 0.1089), abs=1e-4)


def test_a_handful_of_changes_shows_nothing() -> None:
    """Two clips a prompt: shares of 0, 1/2 and 1, of which few change."""
    base = [1.0, 0.5] * 32
    for changes, sure in ((5, False), (6, True)):
        tuned = [value - 0.5 * (i < changes) for i, value in enumerate(base)]
        found = paired_difference(base, tuned)
        assert (found.high < 0.0) == sure


def test_seeded() -> None:
    base, tuned = [0.0, 1.0, 4.0, 2.0, 7.0, 6.0], [1.0, 1.5, 3.0, 4.0, 7.5, 6.1]
    assert paired_difference(base, tuned, seed=1) == paired_difference(base, tuned, seed=1)
    ends = {paired_difference(base, tuned, seed=s, resamples=99).low for s in range(5)}
    assert len(ends) > 1


@pytest.mark.parametrize(("base", "tuned"), [([1.0], [2.0]), ([], []), ([1.0, 2.0], [1.0])])
def test_refuses_what_gives_no_interval(base: list[float], tuned: list[float]) -> None:
    with pytest.raises(TuningError, match=r"at least 2|one pair per prompt"):
        paired_difference(base, tuned)
