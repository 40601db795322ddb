"""Disk that a run takes, and what it downloads."""

from __future__ import annotations

from reward_tuning.doctor.needs import places
from reward_tuning.schema.recipe import Recipe


def disk_of(recipe: Recipe) -> dict[str, float]:
    """Return bytes: `written` to the run folder, clips left out, and `download`.

    Args:
        recipe: Resolved.
    """
    output, cache, *_ = places(recipe)
    return {"written": float(output.needed), "download": float(cache.needed)}
