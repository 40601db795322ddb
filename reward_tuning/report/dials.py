"""Strengths, steps and guidance scales: how every metric moves with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reward_tuning.report.evaluations import Evaluation, Side
from reward_tuning.report.figures import MUTED, Figure, axes, intervals, level, with_marks
from reward_tuning.report.metric_groups import label_of

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
    """Return, for each metric, its change against strength; none where there is one strength."""
    dialled = [one for one in series_of(evaluation) if len(one.sides) > 1][:1]
    if not dialled:
        return []
    sides = [evaluation.sides[index] for index in dialled[0].sides]
    figures = []
    for metric in evaluation.metrics:
        known = [side for side in sides if metric in side.difference]
        if len(known) < 2 or all(side.difference[metric].mean == 0 for side in known):
            continue
        x = [0.0, *(side.strength for side in known)]
        figures.append(_changes(metric, x, known, "strength of the adapter", STRENGTH, start=True))
    return figures


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
            figures.append(_changes(metric, x, known, title, SAMPLING, start=False))
    return figures


def _way(side: Side) -> tuple[int | None, float | None]:
    return side.steps, side.guidance_scale


def _changes(
    metric: str, x: Sequence[float], sides: Sequence[Side], title: str, group: str, *, start: bool
) -> Figure:
    changes = [side.difference[metric] for side in sides]
    zero: list[float | None] = [0.0] if start else []
    trace = intervals(
        x,
        [*zero, *(c.mean for c in changes)],
        [*zero, *(c.low for c in changes)],
        [*zero, *(c.high for c in changes)],
        label_of(metric),
    )
    layout = with_marks(axes(title, "change against the base"), [level(0, "base", MUTED)])
    words = "; ".join(f"{at:g}: {c.mean}" for at, c in zip(x[len(zero) :], changes, strict=True))
    text = f"change of {label_of(metric)} by {title}: {words}"
    name = label_of(metric) if group == STRENGTH else f"{label_of(metric)} by {title}"
    return Figure(name, "", [trace], layout, group, text)
