"""Votes added up: win rates, Bradley-Terry scores, the voters' own noise, and their agreement."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from reward_tuning.statistics.agreement import Agreement, agreement
from reward_tuning.statistics.bradley_terry import Outcome, Score, bradley_terry
from reward_tuning.statistics.clustered_shares import Share, clustered_share
from reward_tuning.statistics.corrections import holm
from reward_tuning.statistics.exact_shares import LEVEL
from reward_tuning.statistics.votes import Vote, Votes, pairs_of

BASE = "base"
PREFERRED, NOT_PREFERRED = "preferred", "reference preferred"
NO_PREFERENCE, CHANCE, NO_VOTES = "no preference seen", "may be chance", "no votes"


@dataclass(frozen=True)
class SideResult:
    """What the votes say of one side against the reference.

    Attributes:
        name: Of the side.
        wins: Votes in which it was preferred to the reference.
        losses: Votes in which the reference was preferred.
        ties: Votes without preference, half a win each.
        bad: Votes "both are bad", which count in no rate and no score.
        win_rate: Share of wins and half the ties, without bad ones; None without votes.
        p_adjusted: p of the win rate, by Holm's method over the sides.
        score: Bradley-Terry score from the votes on all pairs, in natural log odds; None if no
            votes connect the side with the reference.
        verdict: In words.
    """

    name: str
    wins: int
    losses: int
    ties: int
    bad: int
    win_rate: Share | None
    p_adjusted: float | None
    score: Score | None
    verdict: str


@dataclass(frozen=True)
class Control:
    """Votes on pairs of two base clips: the voters' own noise.

    Attributes:
        votes: Number of them, bad ones included.
        bad: Votes "both are bad".
        left: Share of left among left and right; the side bias, one half without one.
        ties: Share of ties among the votes that are not bad.
    """

    votes: int
    bad: int
    left: Share | None
    ties: Share | None


@dataclass(frozen=True)
class VoterResult:
    """One voter: votes on pairs, ties, bad ones, and the side bias and ties on control pairs."""

    name: str
    votes: int
    ties: int
    bad: int
    control: Control


@dataclass(frozen=True)
class VoteTable:
    """The votes of all voters, added up.

    Attributes:
        reference: Name of the side that the others are compared with.
        prompts: Number of prompts with a vote on two different sides.
        votes: Number of such votes.
        sides: One for each other side.
        control: All voters together.
        left: Share of left among all votes for one of two different sides: one half where sides
            are drawn by chance.
        voters: One for each voter.
        agreement: None if no pair has votes of two voters.
    """

    reference: str
    prompts: int
    votes: int
    sides: tuple[SideResult, ...]
    control: Control
    left: Share | None
    voters: tuple[VoterResult, ...]
    agreement: Agreement | None


def add_up(votes: Votes) -> VoteTable:
    """Add the votes of all voters up.

    The reference is the side `base`, else the first by name.
    """
    real = pairs_of(votes.votes)
    names = sorted({name for vote in votes.votes for name in (vote.left, vote.right)})
    reference = BASE if BASE in names or not names else names[0]
    order = [reference, *(name for name in names if name != reference)]
    outcomes = [
        Outcome(vote.prompt, order.index(vote.left), order.index(vote.right), share)
        for vote in real
        if (share := _share(vote, vote.left)) is not None
    ]
    scores = bradley_terry(outcomes, len(order))
    rates = {name: _win_rate(name, reference, real) for name in order[1:]}
    corrected = holm({name: rate.p for name, rate in rates.items() if rate is not None})
    choices: dict[Hashable, list[str]] = {}
    for vote in real:
        choices.setdefault(vote.pair, []).append(vote.chosen)
    return VoteTable(
        reference=reference,
        prompts=len({vote.prompt for vote in real}),
        votes=len(real),
        sides=tuple(
            _side(name, reference, real, rates[name], corrected.get(name), score)
            for name, score in zip(order[1:], scores[1:], strict=True)
        ),
        control=_control(votes.votes),
        left=_left(real),
        voters=tuple(
            _voter(name, [vote for vote in votes.votes if vote.voter == name])
            for name in votes.voters
        ),
        agreement=agreement(choices, {vote.pair: vote.prompt for vote in real}),
    )


def _share(vote: Vote, side: str) -> float | None:
    """Return 1, 1/2 or 0 as a side was preferred, tied or not; None if both were bad."""
    if vote.choice == "bad":
        return None
    return 0.5 if vote.choice == "tie" else float(vote.chosen == side)


def _between(name: str, reference: str, votes: Sequence[Vote]) -> list[Vote]:
    return [vote for vote in votes if {vote.left, vote.right} == {name, reference}]


def _win_rate(name: str, reference: str, votes: Sequence[Vote]) -> Share | None:
    counted = [
        (share, vote.prompt)
        for vote in _between(name, reference, votes)
        if (share := _share(vote, name)) is not None
    ]
    return clustered_share([share for share, _ in counted], [prompt for _, prompt in counted])


def _side(
    name: str,
    reference: str,
    votes: Sequence[Vote],
    rate: Share | None,
    p: float | None,
    score: Score | None,
) -> SideResult:
    chosen = [vote.chosen for vote in _between(name, reference, votes)]
    if rate is None or p is None:
        said = NO_VOTES
    elif rate.low <= 0.5 <= rate.high:
        said = NO_PREFERENCE
    elif p > LEVEL:
        said = CHANCE
    else:
        said = PREFERRED if rate.share > 0.5 else NOT_PREFERRED
    return SideResult(
        name=name,
        wins=chosen.count(name),
        losses=chosen.count(reference),
        ties=chosen.count("tie"),
        bad=chosen.count("bad"),
        win_rate=rate,
        p_adjusted=p,
        score=score,
        verdict=said,
    )


def _left(votes: Sequence[Vote]) -> Share | None:
    decided = [vote for vote in votes if vote.choice in ("left", "right")]
    return clustered_share(
        [float(vote.choice == "left") for vote in decided], [vote.prompt for vote in decided]
    )


def _control(votes: Sequence[Vote]) -> Control:
    shown = [vote for vote in votes if vote.control]
    fine = [vote for vote in shown if vote.choice != "bad"]
    ties = clustered_share(
        [float(vote.choice == "tie") for vote in fine], [vote.prompt for vote in fine]
    )
    return Control(len(shown), len(shown) - len(fine), _left(shown), ties)


def _voter(name: str, votes: Sequence[Vote]) -> VoterResult:
    choices = [vote.choice for vote in pairs_of(votes)]
    return VoterResult(
        name, len(choices), choices.count("tie"), choices.count("bad"), _control(votes)
    )
