"""How sure a difference is: a paired bootstrap over prompts (Efron 1979)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reward_tuning.errors import TuningError

RESAMPLES = 10_000
ROWS = 1_000  # resamples at a time: bounds the memory, changes no number


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


def paired_difference(
    base: Sequence[float],
    tuned: Sequence[float],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Mean of `tuned - base` with its 95 % percentile interval.

    Prompts are drawn again with replacement; a prompt keeps its pair, so that how hard a prompt is
    cancels out.

    Args:
        base: One value a prompt.
        tuned: The same prompts in the same order.
        seed: Of the resampling.
        resamples: How often.

    Raises:
        TuningError: Fewer than two prompts, or unequal numbers of them.
    """
    if len(base) != len(tuned):
        raise TuningError(
            f"{len(base)} base values and {len(tuned)} tuned ones; give one pair a prompt"
        )
    if len(base) < 2:
        raise TuningError(
            f"an interval over {len(base)} prompts says nothing; evaluate at least 2 (better 32)"
        )
    difference = np.asarray(tuned, dtype=np.float64) - np.asarray(base, dtype=np.float64)
    n = len(difference)
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            difference[rng.integers(0, n, size=(min(ROWS, resamples - start), n))].mean(axis=1)
            for start in range(0, resamples, ROWS)
        ]
    )
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(difference.mean()), float(low), float(high))
