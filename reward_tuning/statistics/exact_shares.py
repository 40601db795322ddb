"""Exact tests of the difference of two shares, where each prompt is right or wrong on each side.

A bootstrap is too sure here: if 4 of 128 prompts were lost and none was gained, 98 of 100 resamples
contain at least one of the four, although chance alone gives such a result one time in eight.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

LEVEL = 0.05  # probability outside a 95 % interval


def sign_test(gained: int, lost: int) -> float:
    """Return the two-sided p of the exact sign test, for 0/1 pairs also called McNemar's.

    Args:
        gained: Prompts that went up.
        lost: Prompts that went down; unchanged ones do not count.

    Returns:
        Probability that chance alone, as likely up as down, gives a result as uneven.
    """
    changed = gained + lost
    return min(1.0, 2.0 * _at_least(max(gained, lost), changed, 0.5))


def shares_interval(gained: int, lost: int, prompts: int) -> tuple[float, float]:
    """Return the 95 % interval of the share gained minus the share lost.

    Each share has its exact interval (Clopper and Pearson 1934); the square-and-add rule combines
    them with the correlation of two shares of one sample (Newcombe 1998, Zou and Donner 2008). The
    interval contains 0 unless `sign_test` rejects chance.

    Args:
        gained: Prompts that went from 0 to 1.
        lost: Prompts that went from 1 to 0.
        prompts: Number of all prompts.
    """
    up, down = gained / prompts, lost / prompts
    up_low, up_high = _share_interval(gained, prompts)
    down_low, down_high = _share_interval(lost, prompts)
    odds = up * down / ((1 - up) * (1 - down)) if max(up, down) < 1 else 0.0
    correlation = -math.sqrt(odds)

    def reach(a: float, b: float) -> float:
        return math.sqrt(a * a - 2 * correlation * a * b + b * b)

    low = up - down - reach(up - up_low, down_high - down)
    high = up - down + reach(up_high - up, down - down_low)
    if sign_test(gained, lost) > LEVEL:
        low, high = min(low, 0.0), max(high, 0.0)
    return max(low, -1.0), min(high, 1.0)


@functools.cache
def _share_interval(count: int, of: int) -> tuple[float, float]:
    """Return Clopper and Pearson's exact 95 % interval of a share."""
    low = 0.0 if count == 0 else _solved(lambda p: _at_least(count, of, p))
    high = 1.0 if count == of else 1.0 - _solved(lambda p: _at_least(of - count, of, p))
    return low, high


def _solved(tail: Callable[[float], float]) -> float:
    """Return the point where an increasing tail probability is 2.5 %, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(50):  # 2^-50: as exact as a float of this size
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle) < LEVEL / 2 else (low, middle)
    return (low + high) / 2


def _at_least(count: int, of: int, p: float) -> float:
    """Return the probability of at least `count` successes in `of` draws."""
    if p in (0.0, 1.0):
        return float(count == 0 or p == 1.0)

    def logarithm(k: int) -> float:
        ways = math.lgamma(of + 1) - math.lgamma(k + 1) - math.lgamma(of - k + 1)
        return ways + k * math.log(p) + (of - k) * math.log1p(-p)

    return math.fsum(math.exp(logarithm(k)) for k in range(count, of + 1))
