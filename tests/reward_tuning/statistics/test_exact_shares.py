"""Exact tests and intervals of two shares, against exact sums."""

import math

import pytest
from scipy import stats

from reward_tuning.statistics.exact_shares import share_interval, shares_interval, sign_test


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [(0, 4, 0.125), (0, 5, 0.0625), (6, 0, 0.03125), (0, 0, 1.0), (3, 3, 1.0)],
)
def test_sign_test(gained: int, lost: int, p: float) -> None:
    assert sign_test(gained, lost) == pytest.approx(p)
    low, high = shares_interval(gained, lost, 128)
    assert (low <= 0.0 <= high) == (p > 0.05)


@pytest.mark.parametrize(
    ("gain", "loss"), [(0.0, 0.0), (0.04, 0.0), (0.05, 0.05), (0.3, 0.1), (0.5, 0.4), (0.9, 0.1)]
)
@pytest.mark.parametrize("n", [8, 32])
def test_the_exact_interval_covers(gain: float, loss: float, n: int) -> None:
    """Summed over every outcome of n prompts with its probability."""
    inside = higher = 0.0
    for up in range(n + 1):
        for down in range(n + 1 - up):
            ways = math.comb(n, up) * math.comb(n - up, down)
            share = ways * gain**up * loss**down * max(0.0, 1 - gain - loss) ** (n - up - down)
            low, high = shares_interval(up, down, n)
            inside += share * (low - 1e-9 <= gain - loss <= high + 1e-9)
            higher += share * (low > 0)
    assert inside >= 0.95
    assert higher <= 0.025 or gain > loss


@pytest.mark.parametrize(("count", "of"), [(0, 10), (10, 10), (3, 10), (17, 128)])
def test_clopper_and_pearson(count: int, of: int) -> None:
    exact = stats.binomtest(count, of).proportion_ci(0.95, method="exact")
    assert share_interval(count, of) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_counts_with_halves_lie_between() -> None:
    (a, b), (c, d), (e, f) = (share_interval(count, 20) for count in (7, 7.5, 8))
    assert a < c < e
    assert b < d < f


@pytest.mark.parametrize("prompts", [6, 8, 12, 24, 64])
def test_the_sign_test_and_the_interval_agree(prompts: int) -> None:
    for gained in range(prompts + 1):
        for lost in range(prompts + 1 - gained):
            low, high = shares_interval(gained, lost, prompts)
            assert (low <= 0.0 <= high) == (sign_test(gained, lost) > 0.05)
            exact = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
            assert sign_test(gained, lost) == pytest.approx(exact)
