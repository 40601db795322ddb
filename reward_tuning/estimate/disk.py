"""Disk that a run takes, and what it downloads."""

from __future__ import annotations

from reward_tuning.doctor.needs import places
from reward_tuning.evidence.any_recipe import AnyRecipe


def disk_of(recipe: AnyRecipe) -> dict[str, float]:
    """Return bytes: `written` to the run folder, clips left out, and `download`.

    Args:
        recipe: Resolved.
    """
    output, cache, *_ = places(recipe)
    return {"written": float(output.needed), "download": float(cache.needed)}
