"""The result table of a run: metrics in groups, with a verdict on each change."""

from collections.abc import Mapping, Sequence
from typing import Any

from reward_tuning.statistics.verdicts import (
    ORACLE,
    TONE_OFF,
    comparisons_line,
    is_share,
    of_oracle,
    primary_of,
    value_text,
    verdict_sentence,
    verdicts,
)

COLUMNS = ("", "base", "tuned", "change", "95 % interval", "verdict")

DECIDES = " *"  # after the name of the metric that decides
TRAINED_NOTE = "trained on: a rise there proves nothing"
ORACLE_NOTE = (
    "oracle: share of clips that are right, by functions that compare the pixels with the prompt; "
    "nothing is learned"
)
TONE_NOTE = (
    "background off: distance of the background's grey, from 0 to 1, to the range of its word"
)


def table_rows(evaluation: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of `COLUMNS`, each group under its heading if the file names the groups.

    Metrics that changed on no prompt are omitted: see `constant_rows`.
    """
    rows: list[tuple[str, ...]] = []
    constant = constant_rows(evaluation)
    primary = primary_of(evaluation)
    found = verdicts(evaluation, primary)
    for head, metrics in _groups(evaluation):
        shown = [metric for metric in metrics if metric not in constant]
        if shown and head:
            rows.append((head, *[""] * (len(COLUMNS) - 1)))
        for metric in shown:
            change = evaluation["difference"][metric]
            numbers = _numbers(metric, evaluation, change)
            label = _label(metric, head) + (DECIDES if metric == primary else "")
            rows.append((("  " if head else "") + label, *numbers, found[metric]))
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
    """Return the lines below the table.

    They are the sentence on the metric that decides, the number of comparisons, constant metrics,
    notes on the groups, and scores of renders.
    """
    from reward_tuning.report.metric_groups import label_of  # `--help` needs none of it

    mark = "" if primary_of(evaluation) is None else f"{DECIDES.strip()}: "
    lines = [verdict_sentence(evaluation), mark + comparisons_line(evaluation)]
    if constant := constant_rows(evaluation):
        base = evaluation["base"]
        listed = ", ".join(f"{label_of(one)} {value_text(one, base[one])}" for one in constant)
        lines.append(f"no change seen on any of the {evaluation['prompts']} prompts: {listed}")
    if evaluation.get("trained_on"):
        lines.append(TRAINED_NOTE)
    if ORACLE in evaluation["difference"]:
        lines.append(ORACLE_NOTE)
    if TONE_OFF in evaluation["difference"] and TONE_OFF not in constant:
        lines.append(TONE_NOTE)
    rendered = {k: v for k, v in evaluation.get("rendered", {}).items() if not of_oracle(k)}
    if rendered:
        listed = ", ".join(f"{one} {value_text(one, value)}" for one, value in rendered.items())
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
    oracle = [one for one in metrics if one not in judges and of_oracle(one)]
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


def _numbers(
    metric: str, evaluation: Mapping[str, Any], change: Mapping[str, float | None]
) -> tuple[str, ...]:
    """Format base, tuned, change and interval; fractions of the oracle in per cent."""
    scale, digits = (100, 1) if is_share(metric) else (1, 4)
    mean, low, high = (
        "-" if (value := change[key]) is None else f"{scale * value:+.{digits}f}"
        for key in ("mean", "low", "high")
    )
    sides = (value_text(metric, evaluation[side][metric]) for side in ("base", "tuned"))
    return (*sides, mean, f"{low} to {high}")
