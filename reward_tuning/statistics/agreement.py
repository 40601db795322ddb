"""How far voters agree: the share of alike votes, and Krippendorff's alpha."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from reward_tuning.statistics.clustered_shares import Share, clustered_share


@dataclass(frozen=True)
class Agreement:
    """Agreement of the voters on the pairs that two or more of them voted on.

    Attributes:
        pairs: Number of these pairs.
        alike: Share of two voters' votes on one pair that are alike, with its interval over
            prompts; its p means nothing here.
        alpha: Krippendorff's alpha for names (Krippendorff 2011): 1 is full agreement, 0 that of
            chance; None where all votes are alike.
    """

    pairs: int
    alike: Share
    alpha: float | None


def agreement(
    choices: Mapping[Hashable, Sequence[str]], prompt_of: Mapping[Hashable, int]
) -> Agreement | None:
    """Measure the agreement of voters.

    Args:
        choices: Pair to the choices of its voters, each a name.
        prompt_of: Pair to its prompt.

    Returns:
        None if no pair has two votes.
    """
    shared = {pair: of for pair, of in choices.items() if len(of) > 1}
    alike: list[float] = []
    prompts: list[int] = []
    for pair, of in shared.items():
        both = [float(a == b) for a, b in itertools.combinations(of, 2)]
        alike += both
        prompts += [prompt_of[pair]] * len(both)
    share = clustered_share(alike, prompts)
    if share is None:
        return None
    return Agreement(len(shared), share, krippendorff(shared.values()))


def krippendorff(units: Iterable[Sequence[str]]) -> float | None:
    """Return Krippendorff's alpha for nominal values; None where all values are alike.

    Args:
        units: The values of each unit; units with fewer than two are ignored.
    """
    pairable = [of for of in units if len(of) > 1]
    totals = Counter(value for of in pairable for value in of)
    n = sum(totals.values())
    expected = n * n - sum(count * count for count in totals.values())
    if expected == 0:
        return None
    observed = 0.0
    for of in pairable:
        counts = Counter(of)
        differing = len(of) ** 2 - sum(count * count for count in counts.values())
        observed += differing / (len(of) - 1)
    return 1.0 - (n - 1) * observed / expected
