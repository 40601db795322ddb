"""Correction of p values for their number: among nine metrics, chance alone finds one in three."""

from __future__ import annotations

from collections.abc import Mapping


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjust p values by Holm's step-down method (Holm 1979, Scandinavian Journal of Statistics 6).

    The probability of one false rejection or more among all of them is then at most the level, for
    any dependence: metrics of the same clips are strongly dependent, in ways that Hochberg's or
    Benjamini and Hochberg's methods do not allow for. It rejects all that Bonferroni's does.

    Args:
        p_values: Name to p, each in [0, 1].

    Returns:
        Name to adjusted p, in the same order: reject where it is at most the level.
    """
    found: dict[str, float] = {}
    highest = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        highest = max(highest, min(1.0, (len(p_values) - place) * p_values[name]))
        found[name] = highest
    return {name: found[name] for name in p_values}


def adjusted(p_values: Mapping[str, float], primary: str | None) -> dict[str, float]:
    """Adjust the p values of an evaluation, of which one metric was named beforehand.

    Args:
        p_values: Metric to p.
        primary: The metric that decides; its p stays, and it does not count among the others.
    """
    others = {name: p for name, p in p_values.items() if name != primary}
    corrected = holm(others)
    return {name: corrected.get(name, p) for name, p in p_values.items()}
