"""The result table of a run: metrics in groups, with a verdict on each change."""

from collections.abc import Mapping, Sequence
from typing import Any

HIGHER, LOWER, NO_CHANGE, TOO_FEW = "higher", "lower", "no change seen", "too few prompts"
COLUMNS = ("", "base", "tuned", "change", "95 % interval", "verdict")

MIN_PROMPTS = 8
"""Intervals over fewer prompts are too narrow for skewed scores (benchmarks/intervals.py)."""

ORACLE = "oracle"  # with oracle_colour, oracle_shape, ...: fractions of clips
TONE_OFF = "oracle_tone_off"  # a distance, not a fraction
ORACLE_NOTE = (
    "oracle: share of clips that are right, by functions that compare the pixels with the prompt; "
    "nothing is learned"
)
TONE_NOTE = (
    "background off: distance of the background's grey, from 0 to 1, to the range of its word"
)


def verdict(low: float, high: float, prompts: int) -> str:
    """Return the verdict on a change with this 95 % interval over this number of prompts."""
    if low <= 0 <= high:
        return NO_CHANGE
    if prompts < MIN_PROMPTS:
        return TOO_FEW
    return HIGHER if low > 0 else LOWER


def verdicts(evaluation: Mapping[str, Any]) -> dict[str, str]:
    """Return the verdict on each metric.

    Args:
        evaluation: Content of evaluation.json.
    """
    return {
        metric: verdict(change["low"], change["high"], evaluation["prompts"])
        for metric, change in evaluation["difference"].items()
    }


def table_rows(evaluation: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of `COLUMNS`, each group under its heading if the file names the groups.

    Metrics that changed on no prompt are omitted: see `constant_rows`.
    """
    rows: list[tuple[str, ...]] = []
    constant = constant_rows(evaluation)
    found = verdicts(evaluation)
    for head, metrics in _groups(evaluation):
        shown = [metric for metric in metrics if metric not in constant]
        if shown and head:
            rows.append((head, *[""] * (len(COLUMNS) - 1)))
        for metric in shown:
            change = evaluation["difference"][metric]
            numbers = _numbers(metric, evaluation, change)
            rows.append((("  " if head else "") + _label(metric, head), *numbers, found[metric]))
    return rows


def constant_rows(evaluation: Mapping[str, Any]) -> list[str]:
    """Return the metrics that changed on no prompt."""
    return [
        metric
        for metric, change in evaluation["difference"].items()
        if change.get("up", 0) == change.get("down", 0) == 0 == change["mean"]
        and ("up" in change or change["low"] == change["high"] == 0)
    ]


def lines_below(evaluation: Mapping[str, Any]) -> list[str]:
    """Return the lines below the table: constant metrics, the oracle, scores of renders."""
    lines = []
    if constant := constant_rows(evaluation):
        listed = ", ".join(f"{one} {_value(one, evaluation['base'][one])}" for one in constant)
        lines.append(f"no change seen on any of the {evaluation['prompts']} prompts: {listed}")
    if ORACLE in evaluation["difference"]:
        lines.append(ORACLE_NOTE)
    if TONE_OFF in evaluation["difference"] and TONE_OFF not in constant:
        lines.append(TONE_NOTE)
    rendered = {k: v for k, v in evaluation.get("rendered", {}).items() if not _of_oracle(k)}
    if rendered:
        listed = ", ".join(f"{one} {_value(one, value)}" for one, value in rendered.items())
        lines.append(f"renders of the same prompts score: {listed}")
    return lines


def _groups(evaluation: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return heading and metrics of each group; one group without heading if none are named."""
    metrics = list(evaluation["difference"])
    if "trained_on" not in evaluation:
        return [("", metrics)]
    trained: Sequence[str] = evaluation["trained_on"]
    never: Sequence[str] = evaluation["never_trained_on"]
    judges = {*trained, *never}
    oracle = [one for one in metrics if one not in judges and _of_oracle(one)]
    rest = [one for one in metrics if one not in judges and one not in oracle]
    return [
        ("trained on", [one for one in metrics if one in trained]),
        ("never trained on", [one for one in metrics if one in never]),
        (ORACLE, oracle),
        ("measures", rest),
    ]


def _label(metric: str, head: str) -> str:
    if head != ORACLE:
        return metric
    if metric == TONE_OFF:
        return "background off"
    return "all right" if metric == ORACLE else f"{metric.removeprefix(ORACLE + '_')} right"


def _of_oracle(metric: str) -> bool:
    return metric == ORACLE or metric.startswith(f"{ORACLE}_")


def _is_share(metric: str) -> bool:
    return _of_oracle(metric) and metric != TONE_OFF


def _value(metric: str, value: float) -> str:
    return f"{100 * value:.1f} %" if _is_share(metric) else f"{value:.4f}"


def _numbers(
    metric: str, evaluation: Mapping[str, Any], change: Mapping[str, float]
) -> tuple[str, ...]:
    """Format base, tuned, change and interval; fractions of the oracle in per cent."""
    scale, digits = (100, 1) if _is_share(metric) else (1, 4)
    mean, low, high = (f"{scale * change[key]:+.{digits}f}" for key in ("mean", "low", "high"))
    sides = (_value(metric, evaluation[side][metric]) for side in ("base", "tuned"))
    return (*sides, mean, f"{low} to {high}")
