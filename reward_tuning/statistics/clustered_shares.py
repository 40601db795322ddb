"""A share of votes with its 95 % interval and p, where votes on one prompt go together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reward_tuning.statistics.beta import beta_cdf, student_quantile
from reward_tuning.statistics.exact_shares import LEVEL, NORMAL, share_interval


@dataclass(frozen=True)
class Share:
    """A share of votes.

    Attributes:
        share: In [0, 1].
        low: Lower end of its 95 % interval.
        high: Upper end.
        p: Two-sided p of "the share is one half"; 0.05 or less where the interval leaves it out.
        votes: Number of votes.
    """

    share: float
    low: float
    high: float
    p: float
    votes: int


def clustered_share(values: Sequence[float], prompts: Sequence[int]) -> Share | None:
    """Return the mean of votes with its interval.

    With one vote a prompt and no tie the interval is Clopper and Pearson's, exact. Otherwise it is
    theirs for the effective number of votes (Korn and Graubard 1998, Survey Methodology 24), the
    number of independent votes without ties that would scatter as much: ties raise it, votes on one
    prompt that go together lower it. Where all votes agree it is the number of prompts.

    Args:
        values: One for each vote: 1, 0, or 1/2 for a tie.
        prompts: The prompt of each vote.

    Returns:
        None without votes.
    """
    if not values:
        return None
    votes, share = len(values), sum(values) / len(values)
    effective = _effective(np.asarray(values, dtype=np.float64), np.asarray(prompts), share)
    count = min(share * effective, effective)
    low, high = share_interval(count, effective)
    return Share(share, low, high, _p(count, effective), votes)


def _effective(values: np.ndarray, prompts: np.ndarray, share: float) -> float:
    names, place = np.unique(prompts, return_inverse=True)
    votes, clusters = len(values), len(names)
    if share in (0.0, 1.0):
        return float(clusters)
    # A tie scatters less than a 0 or 1, by a variance of 1/4. Two votes are added, so that ties
    # alone do not give certainty.
    ties = float((values == 0.5).sum()) / (votes + 2)
    scatter = max(1.0 - ties / 4 / (share * (1 - share)), 1.0 / (votes + 2))
    if clusters == votes:
        return votes / scatter
    if clusters < 2:
        return float(clusters)
    sums = np.zeros(clusters)
    np.add.at(sums, place, values - share)
    variance = float((sums**2).sum()) * clusters / (clusters - 1) / votes**2
    independent = scatter * share * (1 - share) / votes
    found = votes / scatter / max(variance / independent, 1.0)
    return float(found * (NORMAL / student_quantile(LEVEL, clusters - 1)) ** 2)


def _p(count: float, of: float) -> float:
    """Return the p whose level the interval of Clopper and Pearson inverts, for one half."""
    at_least = 1.0 if count <= 0 else beta_cdf(0.5, count, of - count + 1)
    at_most = 1.0 if count >= of else beta_cdf(0.5, of - count, count + 1)
    return min(1.0, 2 * min(at_least, at_most))
