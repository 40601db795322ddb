"""Exact tests and intervals of two shares, against exact sums."""

import math

import pytest

from reward_tuning.statistics.exact_shares import shares_interval, sign_test


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
