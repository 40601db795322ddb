"""The rules of the guards, as functions of the rows of guards.jsonl alone.

Every decision of a run is read from its rows: which rule fires, which checkpoint is the best, and
whether the training goes on. A resumed run, and every process of a run, decides alike.

A row holds, for each judge, the paired differences to the base of one evaluation; see `row_of`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from reward_tuning.schema.guards_section import Action, GuardsSection
from reward_tuning.statistics.bootstrap import paired_difference
from reward_tuning.statistics.ratios import Ratio, standard_error

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Fired:
    """A rule that fired.

    Attributes:
        rule: Its key under `guards`.
        action: What follows; `rollback` has become `stop` once the rollbacks are used up.
        text: Why, with the numbers.
    """

    rule: str
    action: Action
    text: str


def history(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that led to the present weights: none that a rollback has undone."""
    kept: list[Row] = []
    for row in rows:
        if acts(row) == "rollback":
            # The row's own evaluation is undone as well; 0 is the start of the training.
            kept = [one for one in kept if one["step"] <= row["back_to"]]
        else:
            kept.append(row)
    return kept


def fired_rules(
    rows: Sequence[Row], guards: GuardsSection, judges: Sequence[str], *, final: bool = False
) -> list[Fired]:
    """Return the rules that fire at the last row.

    Args:
        rows: All rows so far; those that a rollback undid do not count.
        guards: Section of the recipe.
        judges: Labels of the held-out judges.
        final: No step is left, so there is nothing to roll back for.
    """
    seen, used_up = history(rows), rollbacks(rows) >= guards.rollbacks
    found = []
    for rule, check in RULES.items():
        action: Action = getattr(guards, rule).action
        text = None if action == "off" else check(seen, guards, judges)
        if text is None:
            continue
        if action == "rollback" and final:
            action = "stop"
        if action == "rollback" and used_up:
            action, text = "stop", f"{text}; no rollback of {guards.rollbacks} is left"
        found.append(Fired(rule, action, text))
    return found


def held_out_falls(rows: Sequence[Row], guards: GuardsSection, judges: Sequence[str]) -> str | None:
    """Say which held-out judge fell on the last two evaluations while the reward rose.

    Both are compared with the one before, the first of a run with the base. At the first the judge
    must not have risen by more than one standard error, for few prompts do not show the beginning
    of a fall; at the second it must have fallen, to below the base by more than `errors` of them.
    """
    if len(rows) < 2:
        return None
    last, now = rows[-2:]
    reward = now["reward"]
    if reward["before"] is None or reward["now"] is None or reward["now"] <= reward["before"]:
        return None
    for judge in judges:
        first, second = (row["measures"][judge] for row in (last, now))
        before = (
            rows[-3]["measures"][judge]["each"] if len(rows) > 2 else [0.0] * len(first["each"])
        )
        limit = guards.held_out.errors * standard_error(second["each"])
        rose = _rose(before, first["each"])
        if not rose and second["mean"] < first["mean"] and second["mean"] < -limit:
            return (
                f"{judge} fell on two evaluations in a row, to {first['mean']:+.4g} and "
                f"{second['mean']:+.4g} against the base, while the training reward rose from "
                f"{reward['before']:.4g} to {reward['now']:.4g}"
            )
    return None


def _rose(before: Sequence[float], after: Sequence[float]) -> bool:
    """Return whether paired values rose by more than one standard error."""
    gaps = [b - a for a, b in zip(before, after, strict=True)]
    return fmean(gaps) > standard_error(gaps)


def motion_changes(rows: Sequence[Row], guards: GuardsSection, judges: Sequence[str]) -> str | None:
    """Say that the motion is outside its bounds, by more than its standard error."""
    del judges
    rule, ratio = guards.motion, _ratio(rows[-1], "motion")
    if ratio.value - ratio.error > rule.high or ratio.value + ratio.error < rule.low:
        return f"motion is {ratio.value:.2f} of the base's, outside {rule.low:g} to {rule.high:g}"
    return None


def diversity_falls(
    rows: Sequence[Row], guards: GuardsSection, judges: Sequence[str]
) -> str | None:
    """Say that clips of a prompt have become alike, by more than two standard errors.

    Two, because a few pairs of clips that differ in the base carry most of the distance.
    """
    del judges
    rule, ratio = guards.diversity, _ratio(rows[-1], "diversity")
    if ratio.value + 2 * ratio.error < rule.low:
        return f"diversity is {ratio.value:.2f} of the base's, below {rule.low:g}"
    return None


def drifts_away(rows: Sequence[Row], guards: GuardsSection, judges: Sequence[str]) -> str | None:
    """Say that the velocity is too far from the base's."""
    del judges
    drift = rows[-1]["drift"]
    if drift is not None and drift > guards.drift.high:
        return (
            f"the velocity is {drift:.2f} of its length off the base's, above {guards.drift.high:g}"
        )
    return None


Check = Callable[[Sequence[Row], GuardsSection, Sequence[str]], str | None]
RULES: dict[str, Check] = {
    "held_out": held_out_falls,
    "motion": motion_changes,
    "diversity": diversity_falls,
    "drift": drifts_away,
}
"""Rules by their keys under `guards`; a new rule is a function, a line here and its section."""


def acts(row: Row) -> Action:
    """Return what follows from a row: the strongest of the actions of its rules."""
    actions = {fired["action"] for fired in row["fired"]}
    order: tuple[Action, ...] = ("stop", "rollback", "warn")
    return next((action for action in order if action in actions), "off")


def rollbacks(rows: Sequence[Row]) -> int:
    """Count the rollbacks of a run."""
    return sum(acts(row) == "rollback" for row in rows)


def best_row(rows: Sequence[Row], judge: str | None) -> Row | None:
    """Return the row of the best checkpoint.

    Only rows at which no rule stopped or rolled back count, unless there are no others. Of those
    whose mean is not below the highest by more than one standard error of their paired difference,
    the latest is the best: a few prompts cannot tell them apart, and it is trained the longest.

    Args:
        rows: All rows so far.
        judge: Label of the judge that decides; None = the latest row.
    """
    sound = [row for row in rows if acts(row) in ("off", "warn")] or list(rows)
    if judge is None or not sound:
        return sound[-1] if sound else None
    highest = max(sound, key=lambda row: float(row["measures"][judge]["mean"]))
    peak = highest["measures"][judge]["each"]
    for row in reversed(sound):
        gaps = [a - b for a, b in zip(row["measures"][judge]["each"], peak, strict=True)]
        if row is highest or fmean(gaps) >= -standard_error(gaps):
            return row
    raise AssertionError("the highest is among the rows")


def row_of(
    step: int,
    seconds: float,
    reward: tuple[float | None, float | None],
    now: Mapping[str, Sequence[float]],
    base: Mapping[str, Sequence[float]],
    diversity: Ratio,
    drift: float | None,
    judges: Sequence[str],
) -> dict[str, Any]:
    """Return the row of an evaluation, before any rule has seen it.

    8 parameters: everything that an evaluation measures.

    Args:
        step: Optimiser steps done.
        seconds: Time of the evaluation.
        reward: Mean training reward of the steps before the last evaluation, and since.
        now: Metric to one value a prompt.
        base: The same of the base.
        diversity: Ratio to the base's; NaN where it is not measured.
        drift: Relative distance of the velocity to the base's; None where it is not measured.
        judges: Labels of the held-out judges, whose differences the row keeps prompt by prompt.
    """
    measures = {}
    for name, values in now.items():
        each = [b - a for a, b in zip(base[name], values, strict=True)]
        found = paired_difference(base[name], values)
        measures[name] = {
            "base": fmean(base[name]),
            "now": fmean(values),
            "mean": found.mean,
            "low": found.low,
            "high": found.high,
        } | ({"each": each} if name in judges else {})
    motion = Ratio.of(now["motion"], base["motion"])
    return {
        "step": step,
        "seconds": seconds,
        "reward": {"before": reward[0], "now": reward[1]},
        "measures": measures,
        "motion": motion.value,
        "motion_error": motion.error,
        "diversity": diversity.value,
        "diversity_error": diversity.error,
        "drift": drift,
        "fired": [],
        "best": None,
    }


def decided(
    row: Row,
    rows: Sequence[Row],
    guards: GuardsSection,
    judges: Sequence[str],
    *,
    final: bool = False,
) -> Row:
    """Return a row with the rules that fire at it, the best step, and where a rollback leads.

    Args:
        row: A row of `row_of`, as JSON keeps it.
        rows: The rows before it.
        guards: Section of the recipe.
        judges: Labels of the held-out judges; the first one decides which checkpoint is the best.
        final: No step is left.
    """
    fired = fired_rules([*rows, row], guards, judges, final=final)
    full = {**row, "fired": [asdict(one) for one in fired]}
    best = best_row([*rows, full], judges[0] if judges else None)
    assert best is not None
    full["best"] = best["step"]
    if acts(full) == "rollback":
        # Back to sound weights only; where no evaluation was sound, to the start.
        full["back_to"] = best["step"] if acts(best) in ("off", "warn") else 0
    return full


def stops(rows: Sequence[Row], guards: GuardsSection, judges: Sequence[str]) -> bool:
    """Return whether the last row ended the training, and the rules of now still say so."""
    if not rows or acts(rows[-1]) != "stop":
        return False
    *before, last = rows
    return acts(decided(last, before, guards, judges)) == "stop"


def _ratio(row: Row, name: str) -> Ratio:
    value, error = row[name], row[f"{name}_error"]
    # Null is a ratio that could not be formed, or an error that is infinite: no comparison holds.
    return Ratio(math.nan if value is None else value, math.nan if error is None else error)
