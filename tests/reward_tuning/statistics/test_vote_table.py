"""Votes of several voters added up."""

from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from reward_tuning.statistics.vote_table import VoteTable, add_up
from reward_tuning.statistics.votes import read_votes
from tests.reward_tuning.statistics.vote_files import vote, write_votes


def table(tmp_path: Path, **voters: list[dict[str, Any]]) -> VoteTable:
    paths = [
        write_votes(tmp_path / f"{name}.json", rows, voter=name) for name, rows in voters.items()
    ]
    return add_up(read_votes(paths))


def swapped(prompt: int, choice: str) -> dict[str, Any]:
    return vote(prompt, choice, left="tuned", right="base")


def test_one_voter(tmp_path: Path) -> None:
    rows = [vote(i, "right") for i in range(8)] + [swapped(i, "left") for i in range(8, 14)]
    rows += [vote(14, "left"), swapped(15, "right"), vote(16, "tie"), vote(17, "bad")]
    found = table(tmp_path, ann=rows)
    assert (found.reference, found.prompts, found.votes) == ("base", 18, 18)
    (side,) = found.sides
    assert (side.name, side.wins, side.losses, side.ties, side.bad) == ("tuned", 14, 2, 1, 1)
    assert side.win_rate is not None
    assert side.win_rate.share == pytest.approx(14.5 / 17)
    half_wins = stats.beta.ppf(0.025, 14.5, 3.5)  # as if the tie scattered like a win or loss
    assert half_wins < side.win_rate.low < half_wins + 0.02
    assert side.win_rate.p == side.p_adjusted
    assert side.verdict == "preferred"
    assert side.score is not None
    assert 0.0 < side.score.low < side.score.score < side.score.high
    assert found.left is not None
    assert found.left.share == pytest.approx(7 / 16)
    assert found.agreement is None


def test_the_base_preferred_and_no_preference(tmp_path: Path) -> None:
    worse = table(tmp_path, ann=[vote(i, "left") for i in range(10)])
    assert worse.sides[0].verdict == "reference preferred"
    even = table(tmp_path, ben=[vote(i, "left" if i % 2 else "right") for i in range(10)])
    assert even.sides[0].verdict == "no preference seen"
    bad = table(tmp_path, cem=[vote(0, "bad")])
    assert (bad.sides[0].win_rate, bad.sides[0].score) == (None, None)
    assert bad.sides[0].verdict == "no votes"
    assert add_up(read_votes([write_votes(tmp_path / "none.json", [])])).votes == 0


def test_several_sides_are_corrected(tmp_path: Path) -> None:
    """6 of 6 for each: p = 0.03 alone, 0.06 as one of two."""
    rows = [vote(i, "right", right=side) for i in range(6) for side in ("half", "tuned")]
    found = table(tmp_path, ann=rows)
    assert [side.name for side in found.sides] == ["half", "tuned"]
    for side in found.sides:
        assert side.win_rate is not None
        assert side.win_rate.p == pytest.approx(2 / 2**6)
        assert side.p_adjusted == pytest.approx(4 / 2**6)
        assert side.verdict == "may be chance"


def test_scores_use_votes_between_other_sides(tmp_path: Path) -> None:
    rows = [vote(i, "right", right="half") for i in range(6)]
    rows += [vote(i, "right", left="half", right="tuned") for i in range(6)]
    half, tuned = table(tmp_path, ann=rows).sides
    assert tuned.win_rate is None
    assert half.score is not None
    assert tuned.score is not None
    assert tuned.score.score > half.score.score > 0.0


def test_control_pairs_show_the_voters_noise(tmp_path: Path) -> None:
    choices = ["left"] * 9 + ["right"] * 1 + ["tie"] * 5 + ["bad"] * 2
    rows = [vote(i, choice, right="base", control=True) for i, choice in enumerate(choices)]
    found = table(tmp_path, ann=[*rows, vote(0, "right")])
    assert (found.votes, found.control.votes, found.control.bad) == (1, 17, 2)
    assert found.control.left is not None
    assert found.control.ties is not None
    assert found.control.left.share == pytest.approx(0.9)
    exact = stats.binomtest(9, 10).proportion_ci(0.95, method="exact")
    assert found.control.left.low == pytest.approx(exact.low)
    assert found.control.left.low > 0.5  # a side bias
    assert found.control.ties.share == pytest.approx(5 / 15)
    assert found.voters[0].control == found.control


def test_several_voters(tmp_path: Path) -> None:
    """Votes on one prompt are one cluster: three voters who agree are not three times as sure."""
    rows = [vote(i, "right" if i < 15 else "left") for i in range(20)]
    one = table(tmp_path, ann=rows)
    three = table(tmp_path, ann=rows, ben=rows, cem=[*rows[:19], swapped(19, "left")])
    alone, together = one.sides[0].win_rate, three.sides[0].win_rate
    assert alone is not None
    assert together is not None
    assert together.votes == 60
    assert together.high - together.low > 0.9 * (alone.high - alone.low)
    assert three.agreement is not None
    assert three.agreement.pairs == 20
    assert three.agreement.alike.share == pytest.approx(58 / 60)
    assert three.agreement.alpha is not None
    assert 0.8 < three.agreement.alpha < 1.0
    assert [voter.name for voter in three.voters] == ["ann", "ben", "cem"]
