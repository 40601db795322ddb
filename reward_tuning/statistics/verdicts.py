"""The words and the sentence that say what an evaluation found.

One metric, named beforehand, decides. The others get a verdict only where their p stays small
after the correction for their number: of nine metrics without any effect, one 95 % interval in
four runs leaves 0 out (benchmarks/intervals.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reward_tuning.statistics.exact_shares import LEVEL

HIGHER, LOWER, NO_CHANGE = "higher", "lower", "no change seen"
CHANCE, TOO_FEW, NOT_MEASURED = "may be chance", "too few prompts", "not measured"
UNCORRECTED = "not corrected"  # of a file without p values, which earlier versions wrote

MIN_PROMPTS = 24
"""From here on, 95 % intervals hold the truth in 93 to 97 %, also for very skewed differences.

Where only one prompt in ten changes they do so from 32 prompts on (docs/benchmarks.md)."""

ORACLE = "oracle"  # with oracle_colour, oracle_shape, ...: shares of clips
TONE_OFF = "oracle_tone_off"  # a distance, not a share


def default_primary(held_out: Sequence[str], trained_on: Sequence[str]) -> str | None:
    """Return the metric that decides if none is named, or None without judges.

    That is the first held-out judge, else the first training judge.

    Args:
        held_out: Labels of the judges that are never trained on.
        trained_on: Labels of the training judges.
    """
    return next(iter([*held_out, *trained_on]), None)


def primary_of(evaluation: Mapping[str, Any]) -> str | None:
    """Return the metric that decides; of a file of an earlier version the default.

    Args:
        evaluation: Content of evaluation.json.
    """
    if "primary" in evaluation:
        named: str | None = evaluation["primary"]
    else:
        named = default_primary(
            evaluation.get("never_trained_on", []), evaluation.get("trained_on", [])
        )
    return named if named in evaluation["difference"] else None


def verdict(change: Mapping[str, Any], prompts: int, *, decides: bool) -> str:
    """Return the verdict on one change.

    Args:
        change: One entry of `difference` in evaluation.json.
        prompts: Number of prompts.
        decides: It is the metric that was named beforehand.
    """
    low, high = change["low"], change["high"]
    if low is None or high is None:
        return NOT_MEASURED
    if low <= 0 <= high:
        return NO_CHANGE
    if prompts < MIN_PROMPTS:
        return TOO_FEW
    adjusted = change.get("p_adjusted", 0.0 if decides else None)
    if adjusted is None:
        return UNCORRECTED
    if adjusted > LEVEL:
        return CHANCE
    return HIGHER if low > 0 else LOWER


def verdicts(evaluation: Mapping[str, Any], primary: str | None) -> dict[str, str]:
    """Return the verdict on each metric.

    Args:
        evaluation: Content of evaluation.json, or another mapping with its `difference` and
            `prompts`, such as one of its `sides`.
        primary: The metric that decides (`primary_of`).
    """
    return {
        metric: verdict(change, _prompts(evaluation, metric), decides=metric == primary)
        for metric, change in evaluation["difference"].items()
    }


def verdict_sentence(evaluation: Mapping[str, Any]) -> str:
    """Return what the metric that decides found, in one or two sentences.

    Args:
        evaluation: Content of evaluation.json.
    """
    primary = primary_of(evaluation)
    if primary is None:
        return "No metric was named that decides: see the table."
    change, prompts = evaluation["difference"][primary], _prompts(evaluation, primary)
    role = role_of(primary, evaluation)
    who = f"the {role} `{primary}`" if role != ORACLE else f"the oracle (`{primary}`)"
    found = verdict(change, prompts, decides=True)
    if found == NOT_MEASURED:
        return f"No verdict: {who} gave no finite value."
    numbers = f"{interval_text(primary, change)} on {prompts} prompts"
    if prompts < MIN_PROMPTS:
        return (
            f"Too few prompts for a verdict: {who} changed by {numbers}; {MIN_PROMPTS} or more are "
            "needed."
        )
    if found == NO_CHANGE:
        return (
            f"No change seen by {who}: {numbers} (95 % interval). A change within it may have "
            "happened."
        )
    moved = "rose" if change["low"] > 0 else "fell"
    if found == CHANCE:
        return (
            f"{who[0].upper()}{who[1:]} {moved} by {numbers} (95 % interval), which may be chance: "
            "it is one of several comparisons."
        )
    sentence = f"{who[0].upper()}{who[1:]} {moved} by {numbers} (95 % interval)."
    if role == "training judge" and found == HIGHER:
        sentence += (
            " It was trained on, so its rise proves nothing: evaluate with a held-out judge "
            "(evaluation.held_out_rewards)."
        )
    return sentence


def comparisons_line(evaluation: Mapping[str, Any]) -> str:
    """Return how many metrics were compared, which one decides, and what was corrected.

    Args:
        evaluation: Content of evaluation.json.
    """
    count = len(evaluation["difference"])
    primary = primary_of(evaluation)
    compared = f"{count} metric{'' if count == 1 else 's'} compared"
    if primary is not None:
        compared += f"; {primary} decides (named beforehand)"
    others = count - (primary is not None)
    if others < 2:
        return compared
    if any("p_adjusted" not in change for change in evaluation["difference"].values()):
        return f"{compared}; written by an earlier version, without corrections for their number"
    whose = f"the other {others}" if primary is not None else f"all {others}"
    return f"{compared}; verdicts on {whose} allow for their number (Holm), intervals do not"


def role_of(metric: str, evaluation: Mapping[str, Any]) -> str:
    """Return "held-out judge", "training judge", "oracle" or "measure".

    Args:
        metric: Its name.
        evaluation: Content of evaluation.json, which names the judges.
    """
    if metric in evaluation.get("never_trained_on", ()):
        return "held-out judge"
    if metric in evaluation.get("trained_on", ()):
        return "training judge"
    return ORACLE if of_oracle(metric) else "measure"


def of_oracle(metric: str) -> bool:
    """Return whether a metric is one of the embedded world's oracle."""
    return metric == ORACLE or metric.startswith(f"{ORACLE}_")


def is_share(metric: str) -> bool:
    """Return whether a metric is a share of clips, shown in per cent."""
    return of_oracle(metric) and metric != TONE_OFF


def value_text(metric: str, value: float | None) -> str:
    """Return a mean for people: a share in per cent, "-" for one that is not finite."""
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" if is_share(metric) else f"{value:.4f}"


def interval_text(metric: str, change: Mapping[str, float]) -> str:
    """Return a change with its interval, such as `+0.0150 [+0.0080, +0.0230]`.

    Two digits of half the width are shown; shares are in percentage points.

    Args:
        metric: Its name.
        change: With finite `mean`, `low` and `high`.
    """
    scale, unit = (100.0, " points") if is_share(metric) else (1.0, "")
    mean, low, high = (scale * change[key] for key in ("mean", "low", "high"))
    half = (high - low) / 2
    digits = min(max(1 - math.floor(math.log10(half)), 0), 8) if half > 0 else 4
    shown = [f"{round(value, digits) + 0.0:+.{digits}f}" for value in (mean, low, high)]
    return f"{shown[0]}{unit} [{shown[1]}, {shown[2]}]"


def _prompts(evaluation: Mapping[str, Any], metric: str) -> int:
    found = evaluation["difference"][metric].get("prompts")
    return int(evaluation["prompts"] if found is None else found)
