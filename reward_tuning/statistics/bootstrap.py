"""Confidence of a difference: a paired bootstrap over prompts, exact where values are 0 or 1.

The percentile interval of a bootstrap (Efron 1979) is too narrow for few prompts: the resampled
standard deviation is sqrt((n - 1) / n) of the true one, and Student's t is missing. So its
percentiles lie further out (Hesterberg 2015, arXiv 1411.5279). It is also too narrow for skewed
differences: the studentised bootstrap (Efron and Tibshirani 1993, chapter 12) follows their long
tail. Each end is the outer one of the two. benchmarks/intervals.py measures the coverage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from reward_tuning.errors import TuningError
from reward_tuning.statistics.exact_shares import shares_interval

RESAMPLES = 10_000
ROWS = 1_000  # resamples at a time: limits the memory, without effect on the numbers
FEWEST_CHANGED = 6
"""Fewer changed prompts prove nothing: 5 of 5 in one direction has p = 2 / 2^5 = 0.06."""


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
    """Return the mean of `tuned - base` with its 95 % interval.

    If every value is 0 or 1 the interval is exact (`shares_interval`). Otherwise prompts are
    resampled with replacement; a prompt keeps its pair, so that its difficulty cancels out. If
    fewer than `FEWEST_CHANGED` prompts changed, the interval contains 0.

    Args:
        base: One value for each prompt.
        tuned: Values of the same prompts, in the same order.
        seed: Seed of the resampling.
        resamples: Number of resamples.

    Raises:
        TuningError: Fewer than two prompts, or unequal numbers of them.
    """
    if len(base) != len(tuned):
        raise TuningError(
            f"got {len(base)} base values and {len(tuned)} tuned ones; give one pair per prompt"
        )
    if len(base) < 2:
        raise TuningError(f"got {len(base)} prompts; an interval needs at least 2 (better 32)")
    difference = np.asarray(tuned, dtype=np.float64) - np.asarray(base, dtype=np.float64)
    n, mean = len(difference), float(difference.mean())
    if zero_or_one(base) and zero_or_one(tuned):
        return Interval(mean, *shares_interval(*changed(base, tuned), n))
    rng = np.random.default_rng(seed)
    means, errors = np.empty(resamples), np.empty(resamples)
    for start in range(0, resamples, ROWS):
        part = slice(start, min(start + ROWS, resamples))
        drawn = difference[rng.integers(0, n, size=(part.stop - start, n))]
        means[part], errors[part] = drawn.mean(axis=1), _standard_error(drawn)
    outside = 100 * tail(n)
    low, high = map(float, np.percentile(means, [outside, 100 - outside]))
    spread = errors > 0  # a resample of equal values has no standard error
    if spread.any():
        t = (means[spread] - mean) / errors[spread]
        below, above = np.percentile(t, [2.5, 97.5]) * float(_standard_error(difference))
        low, high = min(low, mean - float(above)), max(high, mean - float(below))
    if sum(changed(base, tuned)) < FEWEST_CHANGED:
        low, high = min(low, 0.0), max(high, 0.0)
    return Interval(mean, low, high)


def _standard_error(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard error of the mean over the last axis."""
    found: NDArray[np.float64] = values.std(axis=-1, ddof=1) / math.sqrt(values.shape[-1])
    return found


def changed(base: Sequence[float], tuned: Sequence[float]) -> tuple[int, int]:
    """Count the prompts that went up, and those that went down."""
    pairs = list(zip(base, tuned, strict=True))
    return sum(a < b for a, b in pairs), sum(a > b for a, b in pairs)


def zero_or_one(values: Sequence[float]) -> bool:
    """Return whether each value is 0 or 1."""
    return all(value in (0.0, 1.0) for value in values)


def tail(n: int) -> float:
    """Return the share of resampled means below a 95 % interval over `n` values, 2 or more.

    The quantile of Student's t is the Cornish-Fisher expansion (Abramowitz and Stegun 26.7.5),
    accurate to 1e-3 from 8 values on.
    """
    z, v = NormalDist().inv_cdf(0.975), n - 1
    t = (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )
    return NormalDist().cdf(-t * math.sqrt(n / v))
