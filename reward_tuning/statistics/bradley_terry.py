"""Bradley-Terry scores of sides from votes on pairs, with intervals that are never infinite.

The probability that side i is preferred to side j is 1 / (1 + exp(s_j - s_i)) (Bradley and Terry
1952). Scores maximise the likelihood times Jeffreys' prior (Firth 1993), which keeps them finite
where votes are few or all on one side; between two sides it adds half a vote to each. A tie counts
as half a vote for each side.

The variance is that of independent votes (inverse information), made smaller by ties, which scatter
less, and larger where votes on one prompt go together: several voters on one prompt are not
independent, so the votes of a prompt are one cluster (sandwich estimate; Liang and Zeger 1986).
Intervals then use Student's t over the prompts. They speak of other prompts, not of other voters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reward_tuning.statistics.beta import student_quantile
from reward_tuning.statistics.exact_shares import LEVEL, NORMAL

Floats = NDArray[np.float64]
STEPS, EXACT = 200, 1e-10
LARGEST_STEP = 1.0  # of a score in one Newton step


@dataclass(frozen=True)
class Outcome:
    """One vote: `share` of it, 1, 1/2 or 0, for the first side.

    Attributes:
        prompt: Votes of one prompt are one cluster.
        first: Index of a side.
        second: Index of another side.
        share: 1 if the first was preferred, 0 if the second, 1/2 for a tie.
    """

    prompt: int
    first: int
    second: int
    share: float


@dataclass(frozen=True)
class Score:
    """The score of a side relative to the first one, in natural log odds, and its interval."""

    score: float
    low: float
    high: float


def bradley_terry(outcomes: Sequence[Outcome], sides: int) -> list[Score | None]:
    """Return the score of each side relative to side 0, with its 95 % interval.

    Args:
        outcomes: The votes.
        sides: Number of sides; their indices are below it.

    Returns:
        One for each side, side 0 exactly 0; None for a side that no chain of votes connects with
        side 0.
    """
    reached = _connected(outcomes, sides)
    found: list[Score | None] = [None] * sides
    found[0] = Score(0.0, 0.0, 0.0)
    order = [side for side in range(1, sides) if side in reached]
    if not order:
        return found
    votes = [one for one in outcomes if one.first in reached]
    design = np.zeros((len(votes), len(order)))
    for row, vote in enumerate(votes):
        for side, sign in ((vote.first, 1.0), (vote.second, -1.0)):
            if side != 0:
                design[row, order.index(side)] = sign
    share = np.array([vote.share for vote in votes])
    scores = _fitted(design, share)
    prompts = np.array([vote.prompt for vote in votes])
    errors = np.sqrt(_variances(design, share, scores, prompts))
    clusters = len(np.unique(prompts))
    alone = clusters == len(votes)  # then no variance is estimated from the scatter of prompts
    quantile = NORMAL if alone else student_quantile(LEVEL, max(clusters - 1, 1))
    for side, score, error in zip(order, scores.tolist(), errors.tolist(), strict=True):
        found[side] = Score(score, score - quantile * error, score + quantile * error)
    return found


def preferred(score: float) -> float:
    """Return the probability that a side of this score is preferred to side 0."""
    return 1.0 / (1.0 + math.exp(-score))


def _connected(outcomes: Sequence[Outcome], sides: int) -> set[int]:
    reached, before = {0}, 0
    while len(reached) > before:
        before = len(reached)
        for one in outcomes:
            if one.first in reached or one.second in reached:
                reached |= {one.first, one.second}
    assert all(0 <= side < sides for side in reached)
    return reached


def _fitted(design: Floats, share: Floats) -> Floats:
    """Maximise the likelihood times Jeffreys' prior, by Newton steps on Firth's score."""
    scores: Floats = np.zeros(design.shape[1])
    for _ in range(STEPS):
        p = _expected(design, scores)
        weight = p * (1 - p)
        inverse = np.linalg.inv(design.T @ (weight[:, None] * design))
        leverage = weight * np.einsum("ij,jk,ik->i", design, inverse, design)
        step = inverse @ (design.T @ (share - p + leverage * (0.5 - p)))
        longest = float(abs(step).max())
        scores = scores + step * min(1.0, LARGEST_STEP / max(longest, 1e-300))
        if longest < EXACT:
            break
    return scores


def _expected(design: Floats, scores: Floats) -> Floats:
    found: Floats = 1.0 / (1.0 + np.exp(-(design @ scores)))
    return found


def _variances(design: Floats, share: Floats, scores: Floats, prompts: NDArray[np.int_]) -> Floats:
    """Return the variance of each score: of independent votes, ties and clusters allowed for."""
    p = _expected(design, scores)
    weight = p * (1 - p)
    inverse = np.linalg.inv(design.T @ (weight[:, None] * design))
    # A tie's share of 1/2 scatters less than the 0 or 1 that the information is made for: its
    # variance is smaller by 1/4. Two votes are added, so that ties alone do not give certainty.
    ties = float(((share > 0.0) & (share < 1.0)).sum()) / (len(share) + 2)
    scatter = max(1.0 - ties / 4 / float(weight.mean()), 1.0 / (len(share) + 2))
    independent: Floats = np.diag(inverse) * scatter
    names, place = np.unique(prompts, return_inverse=True)
    if len(names) == len(share) or len(names) < 2:
        return independent
    residual = (share - p)[:, None] * design
    of_prompt = np.zeros((len(names), design.shape[1]))
    np.add.at(of_prompt, place, residual)
    alone = np.diag(inverse @ (residual.T @ residual) @ inverse)
    together = np.diag(inverse @ (of_prompt.T @ of_prompt) @ inverse)
    together = together * len(names) / (len(names) - 1)
    grown = np.where(alone > 0, together / np.maximum(alone, 1e-300), 1.0)
    return independent * np.maximum(grown, 1.0)
