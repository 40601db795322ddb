"""Confidence of a difference: a paired bootstrap over prompts, exact where values are 0 or 1.

Student's t interval is right for differences that are nearly normal or have heavy tails on both
sides, and too narrow for skewed ones. The studentised bootstrap (Efron and Tibshirani 1993, chapter
12) follows a long tail on one side, and is too narrow for two heavy ones. So each end is the outer
one of the two. Neither knows of changes that are too rare to have been seen: if few prompts
changed, the ends are at least those of binomial bounds. benchmarks/intervals.py measures the
coverage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reward_tuning.errors import TuningError
from reward_tuning.statistics.beta import student_p, student_quantile
from reward_tuning.statistics.exact_shares import LEVEL, share_interval, shares_interval, sign_test

Floats = NDArray[np.float64]

RESAMPLES = 10_000
ROWS = 1_000  # resamples at a time: limits the memory, without effect on the numbers
FEWEST_CHANGED = 6
"""Fewer changed prompts prove nothing: 5 of 5 in one direction has p = 2 / 2^5 = 0.06."""
EQUAL = 1e-12
"""Differences that vary by less than this share of the largest one vary by rounding alone."""


@dataclass(frozen=True)
class Interval:
    """A mean, its 95 % interval, and the two-sided p of "no change", 0.05 or less without 0."""

    mean: float
    low: float
    high: float
    p: float


def paired_difference(
    base: Sequence[float],
    tuned: Sequence[float],
    *,
    clips: int = 1,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return the mean of `tuned - base` with its 95 % interval and its p.

    If every value is 0 or 1 both are exact (`shares_interval`, `sign_test`). Otherwise prompts are
    resampled with replacement; a prompt keeps its pair, so that its difficulty cancels out. If
    fewer than `FEWEST_CHANGED` prompts changed, the interval contains 0.

    Args:
        base: One value for each prompt.
        tuned: Values of the same prompts, in the same order.
        clips: Clips for each prompt: values that are all shares of so many clips change by at most
            1, also where no change was seen.
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
    up, down = changed(base, tuned)
    if are_shares([*base, *tuned]):
        return Interval(mean, *shares_interval(up, down, n), sign_test(up, down))
    largest = float(abs(difference).max())
    if float(np.ptp(difference)) <= EQUAL * largest:
        low, high, p = *_ends_of_equal(mean, n), sign_test(up, down)
    else:
        low, high, p = _studentised(difference, seed, resamples)
    if up + down < FEWEST_CHANGED:
        size = 1.0 if are_shares([*base, *tuned], clips) else largest
        rare = _ends_of_rare(difference, size) if size > 0.0 else (0.0, 0.0)
        low, high = min(low, rare[0], 0.0), max(high, rare[1], 0.0)
        p = max(p, sign_test(up + down, 0))
    return Interval(mean, low, high, p)


def _studentised(difference: Floats, seed: int, resamples: int) -> tuple[float, float, float]:
    """Return the outer ends of Student's t and the studentised bootstrap, and the larger p.

    The ends are order statistics of the resampled t, so that p is at most 0.05 exactly where the
    interval leaves 0 out.
    """
    rng = np.random.default_rng(seed)
    n, mean = len(difference), float(difference.mean())
    means, errors = np.empty(resamples), np.empty(resamples)
    for start in range(0, resamples, ROWS):
        part = slice(start, min(start + ROWS, resamples))
        drawn = difference[rng.integers(0, n, size=(part.stop - start, n))]
        means[part], errors[part] = drawn.mean(axis=1), _standard_error(drawn)
    error = float(_standard_error(difference))
    spread = errors > EQUAL * float(abs(difference).max())  # equal values have no standard error
    t = np.sort((means[spread] - mean) / errors[spread])
    t_seen = mean / error
    half = student_quantile(LEVEL, n - 1)
    outside = max(int(LEVEL / 2 * (len(t) + 1)) - 1, 0)
    above, below = max(half, float(t[-1 - outside])), min(-half, float(t[outside]))
    beyond = min(int((t >= t_seen).sum()), int((t <= t_seen).sum()))
    p = min(1.0, 2 * (1 + beyond) / (len(t) + 1))
    p = max(p, student_p(t_seen, n - 1))
    low, high = mean - above * error, mean - below * error
    if p > LEVEL:  # only rounding can disagree, and fewer than 39 resamples
        low, high = min(low, 0.0), max(high, 0.0)
    return low, high, p


def _ends_of_equal(mean: float, n: int) -> tuple[float, float]:
    """Return ends where every prompt changed by the same amount.

    Of n prompts none differed, so a share below 1 - 0.025^(1 / n) of all prompts may; the ends
    assume that those do not change, or change twice as much.
    """
    reach = share_interval(0, n)[1] * abs(mean)
    return mean - reach, mean + reach


def _ends_of_rare(difference: Floats, size: float) -> tuple[float, float]:
    """Return binomial ends: so few prompts changed, none by more than `size`."""
    gained = float(difference.clip(min=0.0).sum()) / size
    lost = float((-difference).clip(min=0.0).sum()) / size
    low, high = shares_interval(gained, lost, len(difference))
    return low * size, high * size


def _standard_error(values: Floats) -> Floats:
    """Return the standard error of the mean over the last axis."""
    found: Floats = values.std(axis=-1, ddof=1) / math.sqrt(values.shape[-1])
    return found


def changed(base: Sequence[float], tuned: Sequence[float]) -> tuple[int, int]:
    """Count the prompts that went up, and those that went down."""
    pairs = list(zip(base, tuned, strict=True))
    return sum(a < b for a, b in pairs), sum(a > b for a, b in pairs)


def are_shares(values: Sequence[float], clips: int = 1) -> bool:
    """Return whether each value is a share of so many clips; of one clip, 0 or 1."""
    parts = np.asarray(values, dtype=np.float64) * clips
    whole = np.round(parts)
    rounding = 1e-12 if clips > 1 else 0.0
    return bool(np.all((whole >= 0) & (whole <= clips) & (abs(parts - whole) <= rounding)))
