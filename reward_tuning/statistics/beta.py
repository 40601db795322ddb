"""The incomplete beta function, from which binomial bounds and Student's t follow.

Written here because a run needs no scipy; the tests compare with it.
"""

from __future__ import annotations

import functools
import math

_TINY = 1e-300
_EXACT = 1e-16
_TERMS = 10_000  # of the continued fraction: about the square root of the larger parameter


def beta_cdf(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b), accurate to about 1e-13.

    It is the probability that a Beta(a, b) variable is below x; for whole numbers also that of at
    least a successes in a + b - 1 draws of probability x. Continued fraction, evaluated by Lentz's
    method (Press et al., Numerical Recipes, 6.4).

    Args:
        x: In [0, 1].
        a: Above 0.
        b: Above 0.
    """
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    if x > (a + 1) / (a + b + 2):  # there the fraction of the other tail converges faster
        return 1.0 - beta_cdf(1 - x, b, a)
    front = a * math.log(x) + b * math.log1p(-x)
    front += math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    c, d = 1.0, 1.0 / _not_zero(1.0 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, _TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / _not_zero(1.0 + term * d)
            c = _not_zero(1.0 + term / c)
            fraction *= c * d
        if abs(c * d - 1.0) < _EXACT:
            break
    return math.exp(front) * fraction / a


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def beta_quantile(share: float, a: float, b: float) -> float:
    """Return the x with I_x(a, b) = share, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):  # 2^-60: beyond the accuracy of the function
        middle = (low + high) / 2
        low, high = (middle, high) if beta_cdf(middle, a, b) < share else (low, middle)
    return (low + high) / 2


def student_p(t: float, freedom: float) -> float:
    """Return the two-sided p of Student's t, of 1 or more degrees of freedom."""
    return beta_cdf(freedom / (freedom + t * t), freedom / 2, 0.5)


@functools.cache
def student_quantile(p: float, freedom: float) -> float:
    """Return the t above 0 whose two-sided p is this one, of (0, 1)."""
    x = beta_quantile(p, freedom / 2, 0.5)
    return math.sqrt(freedom * (1 - x) / x)
