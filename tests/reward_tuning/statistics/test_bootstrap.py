"""Paired intervals, against enumeration, normal theory, Student's t and exact sums."""

import itertools

import numpy as np
import pytest
from scipy import stats

from reward_tuning.errors import TuningError
from reward_tuning.statistics.bootstrap import are_shares, paired_difference


def test_equals_the_enumeration_of_all_resamples() -> None:
    """All 6^6 resamples of six differences, each as likely as the other."""
    base = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    tuned = [0.5, 0.9, 2.6, 3.1, 5.3, 5.2]
    difference = np.array(tuned) - np.array(base)
    low, high = ends_of_all_resamples(difference)
    found = paired_difference(base, tuned, seed=1)
    assert found.mean == pytest.approx(difference.mean())
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)
    assert paired_difference(tuned, base, seed=1).low == pytest.approx(-high, abs=0.02)


def ends_of_all_resamples(difference: np.ndarray) -> tuple[float, float]:
    """The further ends of Student's interval and the studentised one."""
    n, mean = len(difference), difference.mean()
    t = all_resampled_t(difference)
    low, high = np.percentile(t, [2.5, 97.5])
    error = difference.std(ddof=1) / np.sqrt(n)
    student = stats.t.interval(0.95, n - 1, mean, error)
    return min(student[0], mean - high * error), max(student[1], mean - low * error)


def all_resampled_t(difference: np.ndarray) -> np.ndarray:
    n = len(difference)
    draws = difference[np.array(list(itertools.product(range(n), repeat=n)))]
    errors = draws.std(axis=1, ddof=1) / np.sqrt(n)
    spread = errors > 1e-12
    found: np.ndarray = (draws.mean(axis=1) - difference.mean())[spread] / errors[spread]
    return found


def test_p_is_the_larger_of_student_and_resampled() -> None:
    difference = np.array([0.5, -0.4, 0.6, 0.1, 0.55, 0.52, 0.45])
    found = paired_difference([0.0] * 7, difference.tolist(), seed=1, resamples=40_000)
    t = all_resampled_t(difference)
    seen = difference.mean() / (difference.std(ddof=1) / np.sqrt(7))
    resampled = 2 * min((t >= seen).mean(), (t <= seen).mean())
    student = stats.ttest_1samp(difference, 0.0).pvalue
    assert resampled > 1.2 * student
    assert found.p == pytest.approx(resampled, rel=0.08)
    heavy = np.array([-0.05, 0.9, 0.02, 0.03, 0.04, 0.03, 0.05])
    found = paired_difference([0.0] * 7, heavy.tolist())
    assert found.p == pytest.approx(stats.ttest_1samp(heavy, 0.0).pvalue, rel=1e-6)


@pytest.mark.parametrize("shape", ["normal", "skewed", "coarse", "shares", "two clips"])
def test_p_agrees_with_the_interval(shape: str) -> None:
    """p is 0.05 or less exactly where the interval leaves 0 out."""
    rng = np.random.default_rng(4)
    said = []
    for trial in range(120):
        n = int(rng.integers(4, 20))
        base = np.zeros(n)
        tuned = {
            "normal": rng.normal(0.5, 1.0, n),
            "skewed": rng.lognormal(size=n) - 0.9,
            "coarse": rng.integers(-1, 3, n).astype(float),
            "shares": (rng.uniform(size=n) < 0.8).astype(float),
            "two clips": rng.integers(0, 3, n) / 2,
        }[shape]
        if shape in ("shares", "two clips"):
            base[: n // 4] = 1.0
        clips = 2 if shape == "two clips" else 1
        found = paired_difference(
            base.tolist(), tuned.tolist(), clips=clips, seed=trial, resamples=399
        )
        assert (found.p <= 0.05) == (not found.low <= 0.0 <= found.high), (base, tuned, found)
        assert 0.0 < found.p <= 1.0
        said.append(found.p <= 0.05)
    assert 5 < sum(said) < 115


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
    """Prompts differ a lot, the gain is the same for each: only unseen prompts may differ."""
    base = [float(i) for i in range(32)]
    found = paired_difference(base, [value + 0.25 for value in base])
    unseen = 0.25 * (1 - 0.025 ** (1 / 32))
    ends = (0.25, 0.25 - unseen, 0.25 + unseen)
    assert (found.mean, found.low, found.high) == pytest.approx(ends)
    assert found.p == pytest.approx(2 / 2**32)
    rounded = [0.1 * i + 0.3 for i in range(32)]  # differences vary by rounding
    again = paired_difference([0.1 * i for i in range(32)], rounded)
    assert again.low == pytest.approx(0.3 - 0.3 * (1 - 0.025 ** (1 / 32)))


def test_the_interval_covers_the_truth_nineteen_times_of_twenty() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for trial in range(300):
        sample = rng.normal(0.1, 1.0, size=64)
        found = paired_difference([0.0] * 64, sample.tolist(), seed=trial, resamples=1000)
        hits += found.low <= 0.1 <= found.high
    assert 0.92 <= hits / 300 <= 0.98


def test_few_nearly_normal_prompts_have_students_interval() -> None:
    difference = stats.norm.ppf((np.arange(16) + 0.5) / 16)
    found = paired_difference([0.0] * 16, difference.tolist())
    student = stats.t.interval(0.95, 15, 0.0, stats.sem(difference))
    assert found.low <= student[0] + 1e-9
    assert (found.low, found.high) == pytest.approx(student, rel=0.12)
    two = paired_difference([0.0] * 2, [1.0, 2.0])
    assert two.low < 0.0 < two.high  # two prompts show nothing
    assert two.p == pytest.approx(0.5)


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
        found = paired_difference(base, tuned, clips=2)
        assert (found.high < 0.0) == (found.p <= 0.05) == sure


def test_what_was_not_seen_is_bounded() -> None:
    """Where few prompts changed: by binomial bounds, with the largest change seen, or 1."""
    same = [1.0, 0.5] * 16
    unseen = 1 - 0.025 ** (1 / 32)
    shares = paired_difference(same, same, clips=2)
    assert (shares.low, shares.high, shares.p) == pytest.approx((-unseen, unseen, 1.0))
    scores = paired_difference(same, same)  # no change, and no scale of one
    assert (scores.low, scores.high, scores.p) == (0.0, 0.0, 1.0)
    one = [0.3, *[0.0] * 31]
    found = paired_difference([0.0] * 32, one)
    high = 0.3 / 32 + 0.3 * np.hypot(stats.beta.ppf(0.975, 2, 31) - 1 / 32, 0.0)
    assert found.high == pytest.approx(high)
    assert found.low < 0.0


def test_shares_of_clips() -> None:
    assert are_shares([0.0, 1.0])
    assert not are_shares([0.0, 1e-9])
    assert not are_shares([0.0, 0.5])
    assert are_shares([0.0, 1 / 3, 2 / 3, 1.0], 3)
    assert not are_shares([0.0, 4 / 3], 3)
    assert not are_shares([float("nan")])


def test_seeded() -> None:
    base, tuned = [0.0, 1.0, 4.0, 2.0, 7.0, 6.0], [1.0, 1.5, 3.0, 4.0, 7.5, 6.1]
    assert paired_difference(base, tuned, seed=1) == paired_difference(base, tuned, seed=1)
    ends = {paired_difference(base, tuned, seed=s, resamples=99).low for s in range(5)}
    assert len(ends) > 1


@pytest.mark.parametrize(("base", "tuned"), [([1.0], [2.0]), ([], []), ([1.0, 2.0], [1.0])])
def test_refuses_what_gives_no_interval(base: list[float], tuned: list[float]) -> None:
    with pytest.raises(TuningError, match=r"at least 2|one pair per prompt"):
        paired_difference(base, tuned)
