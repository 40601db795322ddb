"""Plain data without NaN and infinity, which JSON does not have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def without_infinities(value: Any) -> Any:
    """Return plain data with None for each number that is not finite; tuples become lists."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: without_infinities(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_infinities(one) for one in value]
    return value
