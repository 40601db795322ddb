"""Bradley-Terry scores, against choix and direct maximisation; the coverage of their intervals."""

import itertools

import choix
import numpy as np
import pytest
from scipy.optimize import minimize

from reward_tuning.statistics.bradley_terry import Outcome, Score, bradley_terry, preferred


def drawn(scores: list[float], prompts: int, ties: float, seed: int = 0) -> list[Outcome]:
    """One vote a prompt, on a random pair."""
    rng = np.random.default_rng(seed)
    pairs = list(itertools.combinations(range(len(scores)), 2))
    found = []
    for prompt in range(prompts):
        a, b = pairs[rng.integers(len(pairs))]
        won = float(rng.uniform() < preferred(scores[a] - scores[b]))
        found.append(Outcome(prompt, a, b, 0.5 if rng.uniform() < ties else won))
    return found


def as_choix(outcomes: list[Outcome]) -> list[tuple[int, int]]:
    """Every vote twice, a tie once each way: (winner, loser)."""
    found = []
    for one in outcomes:
        wins = int(2 * one.share)
        found += [(one.first, one.second)] * wins + [(one.second, one.first)] * (2 - wins)
    return found


def scores_of(found: list[Score | None]) -> list[float]:
    return [one.score for one in found if one is not None]


def test_two_sides_are_choix_with_half_a_vote_more_for_each() -> None:
    outcomes = drawn([0.0, 1.0], 40, ties=0.2)
    data = [*as_choix(outcomes), (0, 1), (1, 0)]
    theirs = choix.opt_pairwise(2, data, alpha=1e-9, tol=1e-10)
    assert bradley_terry(outcomes, 2)[1].score == pytest.approx(theirs[1] - theirs[0], abs=1e-5)  # type: ignore[union-attr]


def test_many_votes_give_the_scores_of_choix() -> None:
    """The prior is worth about half a vote a side, so it is lost among 3,000."""
    outcomes = drawn([0.0, 0.7, -0.4, 1.5], 3000, ties=0.15)
    theirs = choix.opt_pairwise(4, as_choix(outcomes), alpha=1e-9, tol=1e-10)
    assert scores_of(bradley_terry(outcomes, 4)) == pytest.approx(
        (theirs - theirs[0]).tolist(), abs=0.01
    )


def test_maximises_the_likelihood_with_jeffreys_prior() -> None:
    outcomes = drawn([0.0, 2.0, 1.0], 14, ties=0.1)

    def loss(free: np.ndarray) -> float:
        scores = np.array([0.0, *free])
        information = np.zeros((3, 3))
        total = 0.0
        for one in outcomes:
            p = preferred(scores[one.first] - scores[one.second])
            total += one.share * np.log(p) + (1 - one.share) * np.log(1 - p)
            sign = np.zeros(3)
            sign[[one.first, one.second]] = 1.0, -1.0
            information += p * (1 - p) * np.outer(sign, sign)
        return float(-total - 0.5 * np.linalg.slogdet(information[1:, 1:])[1])

    best = minimize(loss, np.zeros(2), tol=1e-12).x
    assert scores_of(bradley_terry(outcomes, 3))[1:] == pytest.approx(best.tolist(), abs=1e-4)


def test_one_sided_votes_stay_finite() -> None:
    one_sided = bradley_terry([Outcome(i, 1, 0, 1.0) for i in range(12)], 2)[1]
    assert one_sided is not None
    assert one_sided.score == pytest.approx(np.log(12.5 / 0.5))
    half = 1.959964 * np.sqrt(1 / 12.5 + 1 / 0.5)
    assert one_sided.high - one_sided.score == pytest.approx(half, rel=0.06)
    assert one_sided.low > 0.0
    single = bradley_terry([Outcome(0, 1, 0, 1.0)], 2)[1]
    assert single is not None
    assert single.low < 0.0 < single.high < 20.0


def test_ties_alone_do_not_give_certainty() -> None:
    found = bradley_terry([Outcome(i, 1, 0, 0.5) for i in range(20)], 2)[1]
    assert found is not None
    assert found.score == pytest.approx(0.0, abs=1e-9)
    assert 0.1 < found.high < 0.5
    assert found.low == pytest.approx(-found.high)


def test_sides_without_connection_have_no_score() -> None:
    outcomes = [Outcome(0, 0, 1, 1.0), Outcome(1, 2, 3, 1.0), Outcome(2, 3, 2, 1.0)]
    found = bradley_terry(outcomes, 4)
    assert found[0] == Score(0.0, 0.0, 0.0)
    assert found[1] is not None
    assert found[2:] == [None, None]
    assert bradley_terry([], 2) == [Score(0.0, 0.0, 0.0), None]


def test_alike_votes_on_a_prompt_are_not_more_votes() -> None:
    once = drawn([0.0, 0.5], 60, ties=0.2)
    thrice = [one for one in once for _ in range(3)]
    alone, together = bradley_terry(once, 2)[1], bradley_terry(thrice, 2)[1]
    assert alone is not None
    assert together is not None
    assert together.high - together.low == pytest.approx(alone.high - alone.low, rel=0.06)


@pytest.mark.parametrize(("voters", "spread"), [(1, 0.0), (3, 1.5)])
def test_intervals_cover(voters: int, spread: float) -> None:
    """64 prompts of unlike difficulty, a fifth ties, one voter or three."""
    rng = np.random.default_rng(voters)
    points, weights = np.polynomial.hermite_e.hermegauss(40)
    p = 0.8 * float((weights / weights.sum() / (1 + np.exp(-0.8 - spread * points))).sum()) + 0.1
    truth = np.log(p / (1 - p))
    inside = 0
    for _ in range(300):
        outcomes = []
        for prompt in range(64):
            chance = preferred(0.8 + spread * rng.normal())
            for _ in range(voters):
                won = float(rng.uniform() < chance)
                outcomes.append(Outcome(prompt, 1, 0, 0.5 if rng.uniform() < 0.2 else won))
        found = bradley_terry(outcomes, 2)[1]
        assert found is not None
        inside += found.low <= truth <= found.high
    assert 0.92 <= inside / 300 <= 0.985
