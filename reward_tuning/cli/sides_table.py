"""The tables of `evaluate` and `compare`: every side, and the change of every metric."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reward_tuning.cli.output import print_json, print_table
from reward_tuning.report.metric_groups import label_of
from reward_tuning.statistics.verdicts import HIGHER, LOWER, verdict

CHANGE_COLUMNS = 5  # sides next to each other: a table of 80 characters
MARK = "*"
MARK_NOTE = f"{MARK} = higher or lower, the p corrected for the number of comparisons"


def print_sides(found: Mapping[str, Any], output: Path, *, as_json: bool) -> None:
    """Print the result of an evaluation as tables, or as JSON.

    Args:
        found: Content of its evaluation.json.
        output: Its folder.
        as_json: Print the content instead.
    """
    if as_json:
        print_json(found)
        return
    seeds, sides, primary = found["seeds"], found["sides"], found["primary"]
    if how := _sampling_line(sides):
        print(how)
    title = f"{found['prompts']} prompts x {seeds} clip{'' if seeds == 1 else 's'}, same noise"
    if primary is not None:
        print_table(f"{label_of(primary)} decides: {title}", *decisive_rows(sides, primary))
    compared = [i for i, side in enumerate(sides) if "difference" in side]
    if compared:
        print_table("Ratio to the base, and drift from it", *ratio_rows(sides, compared))
    for start in range(0, len(compared), CHANGE_COLUMNS):
        part = compared[start : start + CHANGE_COLUMNS]
        print_table("Change against the base", *change_rows(found, part))
    if compared:
        print(MARK_NOTE)
    if constant := constant_metrics([sides[i] for i in compared]):
        print(f"no change seen on any prompt: {', '.join(map(label_of, constant))}")
    for line in found["texts"]:
        print(line)
    for name in ("evaluation.json", "evaluation.csv", "report.html"):
        if (output / name).is_file():
            print(f"{name + ':':17}{output / name}")


def _sampling_line(sides: Sequence[Mapping[str, Any]]) -> str:
    """Return how the sides are sampled whose names do not say it; "" where the file does not."""
    main = sides[0]
    if main.get("steps") is None or main.get("guidance_scale") is None:
        return ""
    how = (main["steps"], main["guidance_scale"])
    several = any((side.get("steps"), side.get("guidance_scale")) != how for side in sides)
    which = ", where the name of a side says nothing else" if several else ""
    return (
        f"sampled in {main['steps']} step{'' if main['steps'] == 1 else 's'} at guidance "
        f"{main['guidance_scale']:g}{which}"
    )


def decisive_rows(
    sides: Sequence[Mapping[str, Any]], primary: str
) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of the metric that decides, a row for each side."""
    rows = []
    for number, side in enumerate(sides):
        mean = _number(side["means"].get(primary), ".4f")
        change = side.get("difference", {}).get(primary)
        row = [mean, "", "", ""]
        if change is not None:
            interval = f"{change['low']:+.4f} to {change['high']:+.4f}"
            row = [mean, f"{change['mean']:+.4f}", interval, _verdict(change)]
        rows.append([*row, _numbered(number, side)])
    return ["mean", "change", "95 % interval", "verdict", "side"], rows


def ratio_rows(
    sides: Sequence[Mapping[str, Any]], compared: Sequence[int]
) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of the ratios to the base, and of the drift."""
    names = dict.fromkeys(name for i in compared for name in sides[i]["ratios"])
    rows = [
        [
            *(_number(sides[i]["ratios"].get(name), ".2f") for name in names),
            _number(sides[i]["means"].get("drift"), ".3f"),
            _numbered(i, sides[i]),
        ]
        for i in compared
    ]
    return [*(name.removeprefix("feature_") for name in names), "drift", "side"], rows


def change_rows(
    found: Mapping[str, Any], compared: Sequence[int]
) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of the changes: a row for each metric that changed, judges first.

    Args:
        found: Content of evaluation.json.
        compared: Numbers of the sides, which head the columns.
    """
    sides = [found["sides"][i] for i in compared]
    judges = [*found["trained_on"], *found["never_trained_on"]]
    metrics = dict.fromkeys(name for side in sides for name in side["difference"])
    order = [one for one in judges if one in metrics]
    order += [one for one in metrics if one not in judges]
    rows = []
    for metric in order:
        changes = [side["difference"].get(metric) for side in sides]
        if not any(change and (change["up"] or change["down"]) for change in changes):
            continue
        role = " (trained on)" if metric in found["trained_on"] else ""
        rows.append([*map(_change, changes), f"{label_of(metric)}{role}"])
    return [*(f"side {i}" for i in compared), "metric"], rows


def constant_metrics(sides: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the metrics that changed on no prompt of any side."""
    metrics = dict.fromkeys(name for side in sides for name in side["difference"])
    return [
        metric
        for metric in metrics
        if not any(
            side["difference"][metric][way]
            for side in sides
            for way in ("up", "down")
            if metric in side["difference"]
        )
    ]


def _change(change: Mapping[str, Any] | None) -> str:
    if change is None:
        return "-"
    return f"{change['mean']:+.4f}{MARK if _verdict(change) in (HIGHER, LOWER) else ' '}"


def _verdict(change: Mapping[str, Any]) -> str:
    # `decides` matters for files without corrected p values only
    return verdict(change, change["prompts"], decides=False)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _numbered(number: int, side: Mapping[str, Any]) -> str:
    return f"{number} {side['name']}"
