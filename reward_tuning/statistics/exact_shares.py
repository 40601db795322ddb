"""Exact tests and intervals of shares, and of the difference of two shares of one sample.

A bootstrap is too sure here: if 4 of 128 prompts were lost and none was gained, 98 of 100 resamples
contain at least one of the four, although chance alone gives such a result one time in eight.
"""

from __future__ import annotations

import functools
import math
from statistics import NormalDist

from reward_tuning.statistics.beta import beta_cdf, beta_quantile

LEVEL = 0.05  # probability outside a 95 % interval
NORMAL = NormalDist().inv_cdf(1 - LEVEL / 2)  # half its width, in standard errors


def sign_test(gained: int, lost: int) -> float:
    """Return the two-sided p of the exact sign test, for 0/1 pairs also called McNemar's.

    Args:
        gained: Prompts that went up.
        lost: Prompts that went down; unchanged ones do not count.

    Returns:
        Probability that chance alone, as likely up as down, gives a result as uneven.
    """
    more, fewer = max(gained, lost), min(gained, lost)
    return 1.0 if more == fewer else min(1.0, 2.0 * beta_cdf(0.5, more, fewer + 1))


def shares_interval(gained: float, lost: float, prompts: int) -> tuple[float, float]:
    """Return the 95 % interval of the share gained minus the share lost.

    Each share has its exact interval (Clopper and Pearson 1934); the square-and-add rule combines
    them with the correlation of two shares of one sample (Newcombe 1998, Zou and Donner 2008). For
    whole numbers the interval contains 0 exactly if `sign_test` does not reject chance.

    Args:
        gained: Prompts that went from 0 to 1, or the sum of the parts gained, each in [0, 1].
        lost: Prompts that went from 1 to 0, or the sum of the parts lost.
        prompts: Number of all prompts.
    """
    up, down = gained / prompts, lost / prompts
    up_low, up_high = share_interval(gained, prompts)
    down_low, down_high = share_interval(lost, prompts)
    odds = up * down / ((1 - up) * (1 - down)) if max(up, down) < 1 else 0.0
    correlation = -math.sqrt(odds)

    def reach(a: float, b: float) -> float:
        return math.sqrt(a * a - 2 * correlation * a * b + b * b)

    low = up - down - reach(up - up_low, down_high - down)
    high = up - down + reach(up_high - up, down - down_low)
    whole = gained == int(gained) and lost == int(lost)
    if whole and sign_test(int(gained), int(lost)) > LEVEL:
        low, high = min(low, 0.0), max(high, 0.0)
    return max(low, -1.0), min(high, 1.0)


@functools.cache
def share_interval(count: float, of: float) -> tuple[float, float]:
    """Return Clopper and Pearson's exact 95 % interval of a share.

    Counts that are not whole, such as ties counted as half, are read through the beta function; the
    interval is then wider than exact, because such counts scatter less.
    """
    low = 0.0 if count <= 0 else beta_quantile(LEVEL / 2, count, of - count + 1)
    high = 1.0 if count >= of else beta_quantile(1 - LEVEL / 2, count + 1, of - count)
    return low, high
