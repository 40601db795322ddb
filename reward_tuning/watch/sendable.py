"""What a run wrote, made fit for an answer: a damaged value must not take the page down."""

from __future__ import annotations

from typing import Any

from reward_tuning.report.pages import readable

DEEPEST = 20
LARGEST = 2**1023  # JavaScript has doubles


def sendable(value: Any, depth: int = 0) -> Any:
    """Return data from JSON so that strict JSON and UTF-8 can hold it.

    Args:
        value: Plain data.
        depth: Levels around it.

    Returns:
        The same, with None in place of numbers that are not finite and of what lies deeper than
        `DEEPEST`, and texts that can be shown.
    """
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, int | float):
        return value if abs(value) < LARGEST else None  # as NaN is not, either
    if isinstance(value, dict | list) and depth == DEEPEST:
        return None
    if isinstance(value, dict):
        return {readable(key): sendable(one, depth + 1) for key, one in value.items()}
    if isinstance(value, list):
        return [sendable(one, depth + 1) for one in value]
    return value
