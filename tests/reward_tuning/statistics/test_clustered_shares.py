"""Shares of votes, against exact binomial intervals, and by simulation."""

import numpy as np
import pytest
from scipy import stats

from reward_tuning.statistics.clustered_shares import Share, clustered_share


def share(values: list[float], prompts: list[int]) -> Share:
    found = clustered_share(values, prompts)
    assert found is not None
    return found


@pytest.mark.parametrize(("wins", "of"), [(0, 8), (7, 10), (33, 64), (20, 20)])
def test_one_vote_a_prompt_is_exact(wins: int, of: int) -> None:
    found = share([1.0] * wins + [0.0] * (of - wins), list(range(of)))
    exact = stats.binomtest(wins, of)
    interval = exact.proportion_ci(0.95, method="exact")
    assert (found.share, found.votes) == (wins / of, of)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-9)
    assert found.p == pytest.approx(exact.pvalue)


def test_p_agrees_with_the_interval() -> None:
    rng = np.random.default_rng(2)
    said = []
    for _ in range(200):
        prompts = rng.integers(0, 30, 40).tolist()
        values = rng.choice([0.0, 0.5, 1.0], 40, p=[0.15, 0.3, 0.55]).tolist()
        found = share(values, prompts)
        assert (found.p <= 0.05) == (not found.low <= 0.5 <= found.high)
        said.append(found.p <= 0.05)
    assert 20 < sum(said) < 180


def test_alike_votes_on_a_prompt_count_once() -> None:
    once = share([1.0, 0.0, 1.0, 1.0] * 10, list(range(40)))
    thrice = share([1.0, 0.0, 1.0, 1.0] * 30, list(range(40)) * 3)
    assert thrice.votes == 120
    assert thrice.high - thrice.low == pytest.approx(once.high - once.low, rel=0.06)
    few = share([1.0, 0.0, 1.0, 1.0, 0.0] * 6, list(range(10)) * 3)
    effective = 9 * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 9)) ** 2  # 10 prompts less one
    wins = 0.6 * effective
    assert few.low == pytest.approx(stats.beta.ppf(0.025, wins, effective - wins + 1))
    all_alike = share([1.0] * 30, list(range(10)) * 3)
    assert all_alike.low == pytest.approx(0.025 ** (1 / 10))


def test_ties_scatter_less() -> None:
    """Half the votes are ties: the variance is 1/8 instead of 1/4."""
    values = [1.0, 0.0, 0.5, 0.5] * 100
    found = share(values, list(range(400)))
    half = 1.96 * np.std(values) / np.sqrt(400)
    assert found.high - 0.5 == pytest.approx(half, rel=0.02)
    all_ties = share([0.5] * 20, list(range(20)))
    assert 0.02 < all_ties.high - 0.5 < 0.15


def test_no_votes() -> None:
    assert clustered_share([], []) is None


def test_intervals_of_several_voters_cover() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        chance = rng.beta(1.2, 0.8, 40)
        values = (rng.uniform(size=(3, 40)) < chance).astype(float).ravel().tolist()
        found = share(values, list(range(40)) * 3)
        inside += found.low <= 0.6 <= found.high
    assert 0.93 <= inside / 400 <= 0.99
