"""A ratio of means of paired values, with its standard error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Ratio:
    """A ratio of means over prompts, with its standard error; NaN where it cannot be formed."""

    value: float
    error: float

    @classmethod
    def of(cls, now: Sequence[float], base: Sequence[float]) -> Ratio:
        """Return the ratio of the means of paired values (Cochran 1977, equation 2.46)."""
        below = fmean(base) if base else 0.0
        if below == 0.0:
            return cls(math.nan, math.nan)
        value = fmean(now) / below
        off = [a - value * b for a, b in zip(now, base, strict=True)]
        return cls(value, standard_error(off) / abs(below))


def standard_error(values: Sequence[float]) -> float:
    """Return the standard error of a mean; infinite for fewer than two values."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf
