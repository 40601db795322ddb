"""Strengths, steps and guidance scales: how every metric moves with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reward_tuning.report.evaluations import Change, Evaluation, Side
from reward_tuning.report.figures import MUTED, Figure, axes, intervals, level, with_marks
from reward_tuning.report.metric_groups import label_of
from reward_tuning.statistics.bootstrap import paired_difference
from reward_tuning.statistics.verdicts import is_share

STRENGTH, SAMPLING = "strength", "sampling"


@dataclass(frozen=True)
class Series:
    """Sides that differ in strength alone.

    Attributes:
        label: What distinguishes it from the other series of the page.
        base: Index of the side that they are compared with.
        sides: Their indices, by strength; never empty.
    """

    label: str
    base: int
    sides: tuple[int, ...]


def series_of(evaluation: Evaluation) -> list[Series]:
    """Return the sides with an adapter in series by strength, in the order of the file."""
    sides = evaluation.sides
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, side in enumerate(sides):
        if side.against is not None:
            key = (side.adapter, side.steps, side.guidance_scale, side.against)
            groups.setdefault(key, []).append(index)
    first = [sides[of[0]] for of in groups.values()]
    adapters = len({side.adapter for side in first}) > 1
    steps = len({side.steps for side in first}) > 1
    guidances = len({side.guidance_scale for side in first}) > 1
    found = []
    for of in groups.values():
        side = sides[of[0]]
        parts = [side.adapter or side.name] if adapters else []
        parts += [f"{side.steps} steps"] if steps else []
        parts += [f"guidance {side.guidance_scale:g}"] if guidances and side.guidance_scale else []
        by_strength = sorted(of, key=lambda index: sides[index].strength)
        assert side.against is not None
        found.append(Series(", ".join(parts) or side.name, side.against, tuple(by_strength)))
    return found


def strength_figures(evaluation: Evaluation) -> list[Figure]:
    """Return, for each metric, its change against strength; none where there is one strength.

    A run evaluates other strengths on its first prompts alone. The points of a curve must answer
    the same prompts, so the changes of the other sides are those on the prompts that all have.
    """
    dialled = [one for one in series_of(evaluation) if len(one.sides) > 1][:1]
    if not dialled:
        return []
    sides = [evaluation.sides[index] for index in dialled[0].sides]
    figures = []
    for metric in evaluation.metrics:
        known = [side for side in sides if metric in side.difference]
        changes, prompts = _on_common_prompts(metric, known, evaluation)
        if len(known) < 2 or all(change.mean == 0 for change in changes):
            continue
        x = [0.0, *(side.strength for side in known)]
        caption = f"On the {prompts} prompts that all strengths answered." if prompts else ""
        title = "strength of the adapter"
        figures.append(_changes(metric, x, changes, title, STRENGTH, caption, start=True))
    return figures


def _on_common_prompts(
    metric: str, sides: Sequence[Side], evaluation: Evaluation
) -> tuple[list[Change], int | None]:
    """Return the changes on the prompts that all sides have, and their number if some have more."""
    recorded = [side.difference[metric] for side in sides]
    rows = []
    for side in sides:
        base = evaluation.sides[side.against or 0].scores.get(metric, [])
        pairs = enumerate(zip(base, side.scores.get(metric, []), strict=False))
        rows.append({i: (a, b) for i, (a, b) in pairs if a is not None and b is not None})
    common = sorted(set.intersection(*(set(row) for row in rows))) if rows else []
    if len(common) < 2 or all(len(row) == len(common) for row in rows):
        return recorded, None
    found = []
    for row, change in zip(rows, recorded, strict=True):
        if len(row) == len(common):
            found.append(change)
            continue
        base_values, values = zip(*(row[i] for i in common), strict=True)
        interval = paired_difference(base_values, values, clips=evaluation.seeds or 1)
        found.append(Change(mean=interval.mean, low=interval.low, high=interval.high))
    return found, len(common)


def sampling_figures(evaluation: Evaluation) -> list[Figure]:
    """Return the change of the deciding metric by steps, and by guidance scale, if they vary."""
    metric = evaluation.primary
    if metric is None:
        return []
    sides = [s for s in evaluation.sides if s.against is not None and metric in s.difference]
    if not sides:
        return []
    usual = max(
        ((s.adapter, s.strength) for s in sides),
        key=lambda kind: len({_way(s) for s in sides if (s.adapter, s.strength) == kind}),
    )
    sides = [s for s in sides if (s.adapter, s.strength) == usual]
    figures = []
    for name, title in (("steps", "sampler steps"), ("guidance_scale", "guidance scale")):
        other = "guidance_scale" if name == "steps" else "steps"
        first = getattr(sides[0], other)
        known = [s for s in sides if getattr(s, other) == first and getattr(s, name) is not None]
        known.sort(key=lambda side: float(getattr(side, name)))
        x = [float(getattr(side, name)) for side in known]
        if len(set(x)) > 1:
            changes = [side.difference[metric] for side in known]
            figures.append(_changes(metric, x, changes, title, SAMPLING, start=False))
    return figures


def _way(side: Side) -> tuple[int | None, float | None]:
    return side.steps, side.guidance_scale


def _changes(
    metric: str,
    x: Sequence[float],
    changes: Sequence[Change],
    title: str,
    group: str,
    caption: str = "",
    *,
    start: bool,
) -> Figure:
    zero: list[float | None] = [0.0] if start else []
    factor, unit = (100.0, " points") if is_share(metric) else (1.0, "")
    mean, low, high = (
        [*zero, *(None if v is None else factor * v for v in values)]
        for values in zip(*((c.mean, c.low, c.high) for c in changes), strict=True)
    )
    trace = intervals(x, mean, low, high, label_of(metric))
    trace["hovertemplate"] += unit
    of_axis = "change in percentage points" if unit else "change against the base"
    layout = with_marks(axes(title, of_axis), [level(0, "base", MUTED)])
    told = zip(x, mean, strict=True)
    words = "; ".join(f"{at:g}: {'not known' if v is None else f'{v:.3g}'}" for at, v in told)
    text = f"{of_axis} of {label_of(metric)} by {title}: {words}"
    name = label_of(metric) if group == STRENGTH else f"{label_of(metric)} by {title}"
    return Figure(name, caption, [trace], layout, group, text)
