"""The final evaluation of a run, for trackers: numbers to compare runs by, and a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reward_tuning.runs.tracker_parts import Cell, Table
from reward_tuning.statistics.verdicts import role_of

REWARD_COLUMNS = ("metric", "role", "base", "tuned", "difference", "low", "high", "prompts")
LOSS_COLUMNS = ("loss", "base", "tuned", "difference")


def evaluation_scalars(found: Mapping[str, Any]) -> dict[str, float]:
    """Return the means of both sides and their differences, by name.

    Args:
        found: Content of evaluation.json; that of finetune.json gives none, for the loop has logged
            its losses already.
    """
    sides = {"base": found.get("base"), "tuned": found.get("tuned")}
    if "difference" not in found:
        return {}
    scalars = {
        f"evaluation/{side}/{metric}": value
        for side, means in sides.items()
        for metric, value in (means or {}).items()
    }
    for metric, change in found["difference"].items():
        scalars[f"evaluation/difference/{metric}"] = change["mean"]
    return {name: value for name, value in scalars.items() if value is not None}


def evaluation_table(found: Mapping[str, Any]) -> Table | None:
    """Return the table of an evaluation; None where nothing was measured.

    Args:
        found: Content of evaluation.json or finetune.json.
    """
    if "difference" in found:
        rows: list[list[Cell]] = []
        for metric, change in found["difference"].items():
            sides: list[Cell] = [found[side].get(metric) for side in ("base", "tuned")]
            interval: list[Cell] = [change.get(key) for key in ("mean", "low", "high")]
            prompts = change.get("prompts", found.get("prompts"))
            rows.append([metric, role_of(metric, found), *sides, *interval, prompts])
        return Table(REWARD_COLUMNS, rows)
    base, tuned = found.get("base"), found.get("tuned")
    if not base or not tuned or "by_level" not in tuned:
        return None
    losses = {"mean": (base["loss"], tuned["loss"])}
    for level, after in tuned["by_level"].items():
        losses[f"at noise {level}"] = (base["by_level"][level], after)
    changes = [[name, before, after, after - before] for name, (before, after) in losses.items()]
    return Table(LOSS_COLUMNS, changes)
