"""The paired bootstrap, against enumeration and normal theory."""

import itertools

import numpy as np
import pytest

from reward_tuning.bootstrap import paired_difference
from reward_tuning.errors import TuningError


def test_equals_the_enumeration_of_all_resamples() -> None:
    """All 5^5 resamples of five differences, each as likely as the other."""
    base = [0.0, 1.0, 2.0, 3.0, 4.0]
    tuned = [0.5, 0.9, 2.6, 3.1, 5.3]
    difference = np.array(tuned) - np.array(base)
    means = np.array([np.mean(draw) for draw in itertools.product(difference, repeat=5)])
    low, high = np.percentile(means, [2.5, 97.5])
    found = paired_difference(base, tuned, seed=1)
    assert found.mean == pytest.approx(np.mean(difference))
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)


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


def test_seeded() -> None:
    base, tuned = [0.0, 1.0, 4.0, 2.0, 7.0], [1.0, 1.5, 3.0, 4.0, 7.5]
    assert paired_difference(base, tuned, seed=1) == paired_difference(base, tuned, seed=1)
    ends = {paired_difference(base, tuned, seed=s, resamples=99).low for s in range(5)}
    assert len(ends) > 1


@pytest.mark.parametrize(("base", "tuned"), [([1.0], [2.0]), ([], []), ([1.0, 2.0], [1.0])])
def test_refuses_what_gives_no_interval(base: list[float], tuned: list[float]) -> None:
    with pytest.raises(TuningError, match=r"at least 2|one pair a prompt"):
        paired_difference(base, tuned)
