"""Curves of a training: rewards, held-out judges, motion, diversity, drift, time and memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reward_tuning.report.evaluations import Checkpoint
from reward_tuning.report.figures import (
    LOSS,
    MUTED,
    SERIES,
    STEP,
    Figure,
    axes,
    intervals,
    level,
    line,
    moment,
    points,
    step_layout,
)
from reward_tuning.report.run_rows import Row, column, names, number, trailing_mean

REWARDS, GUARDED, COST = "Training reward", "Guards, against the base", "Time and memory"
GB = 1e9
BOUNDS = {
    "motion": (("low", "high"), "ratio to the base", 1.0),
    "diversity": (("low",), "ratio to the base", 1.0),
    "drift": (("high",), "distance of the velocity", 0.0),
}
"""Of each measure with a rule: keys of its thresholds, unit, and value of the base, at step 0."""


def training_curves(rows: Sequence[Row], checkpoint: Checkpoint | None) -> list[Figure]:
    """Return the curves of metrics.jsonl: each reward, the loss, the gradient norm.

    Args:
        rows: Rows of metrics.jsonl.
        checkpoint: The chosen checkpoint, which is marked.
    """
    marks = _chosen(checkpoint)
    figures = [
        _noisy(rows, ("reward", label), label, "score, higher is better", marks)
        for label in names(rows, "reward")
    ]
    if not figures and any(v is not None for v in column(rows, "loss")):
        figures.append(_noisy(rows, ("loss",), "loss", "loss, lower is better", marks))
    if any(v is not None for v in column(rows, "grad_norm")):
        figures.append(_noisy(rows, ("grad_norm",), "gradient norm", "norm before clipping", marks))
    return figures


def _noisy(
    rows: Sequence[Row], keys: tuple[str, ...], name: str, unit: str, marks: Sequence[Any]
) -> Figure:
    steps, values = [row["step"] for row in rows], column(rows, *keys)
    width = max(2, min(50, len(values) // 10))
    mean = trailing_mean(values, width)
    traces = [
        line(steps, values, "each step", MUTED, opacity=0.4, line={"color": MUTED, "width": 1}),
        line(steps, mean, f"mean of {width} steps"),
    ]
    ends = [v for v in mean if v is not None]
    text = f"{name} by training step"
    text += f": begins at {ends[0]:.4g}, ends at {ends[-1]:.4g}" if ends else ""
    caption = "Every step draws other prompts and noise, so single steps scatter."
    layout = step_layout(steps, unit, moments=marks)
    return Figure(name, caption, traces, layout, REWARDS, text)


def _chosen(checkpoint: Checkpoint | None) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    if checkpoint is None:
        return []
    return [moment(checkpoint.step, f"chosen: step {checkpoint.step}")]


def guard_curves(
    rows: Sequence[Row],
    training: Sequence[Row],
    recipe: Mapping[str, Any],
    held_out: Sequence[str],
    checkpoint: Checkpoint | None,
) -> list[Figure]:
    """Return the curves of guards.jsonl, with thresholds, fired rules and the chosen checkpoint.

    Args:
        rows: Rows of guards.jsonl; without any, motion and drift of the training are shown.
        training: Rows of metrics.jsonl.
        recipe: The recipe as plain data; its `guards` hold the thresholds.
        held_out: Judges never trained on, shown first.
        checkpoint: The chosen checkpoint.
    """
    marks = [*_chosen(checkpoint), *_fired(rows)]
    if not rows:
        return _unguarded(training, marks)
    measured = names(rows, "measures")
    order = [n for n in held_out if n in measured] + [n for n in measured if n not in held_out]
    judges = [n for n in order if n in held_out] or order[:1]
    figures = [_against_base(rows, name, marks) for name in judges]
    for name, (keys, unit, start) in BOUNDS.items():
        values = column(rows, name)
        if all(v is None for v in values):
            continue
        rule = _of(_of(recipe, "guards"), name)
        limits = [number(dict(rule), key) for key in keys]
        levels = [level(v, f"threshold {v:g}") for v in limits if v is not None]
        steps = [0, *(row["step"] for row in rows)]
        traces = [points(steps, [start, *values], name)]
        layout = step_layout(steps, unit, levels, marks)
        action = rule.get("action")
        caption = f"The rule of {name} is set to {action}." if action else ""
        text = f"{name} of the guard evaluations: last {values[-1]}"
        figures.append(Figure(name, caption, traces, layout, GUARDED, text))
    return figures


def _of(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = data.get(key)
    return found if isinstance(found, Mapping) else {}


def _against_base(rows: Sequence[Row], name: str, marks: Sequence[Any]) -> Figure:
    steps = [0, *(row["step"] for row in rows)]
    mean, low, high = (
        [0.0, *column(rows, "measures", name, key)] for key in ("mean", "low", "high")
    )
    traces = [intervals(steps, mean, low, high, name)]
    layout = step_layout(steps, "change against the base", [level(0, "base", MUTED)], marks)
    caption = "Fixed prompts and noise; bars are 95 % intervals over prompts."
    return Figure(name, caption, traces, layout, GUARDED, f"{name} against the base by step")


def _fired(rows: Sequence[Row]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    marks = []
    for row in rows:
        fired = [one for one in row.get("fired") or () if isinstance(one, Mapping)]
        rules = ", ".join(f"{one.get('rule')}: {one.get('action')}" for one in fired)
        if rules:
            marks.append(moment(row["step"], rules, LOSS))
    return marks


def _unguarded(rows: Sequence[Row], marks: Sequence[Any]) -> list[Figure]:
    figures = []
    for name in ("motion", "drift"):
        values = column(rows, name)
        if any(v is not None for v in values):
            one = _noisy(rows, (name,), f"{name} of the training's latents", name, marks)
            figures.append(one)
    return figures


def cost_curves(rows: Sequence[Row]) -> list[Figure]:
    """Return seconds and memory by phase."""
    steps = [row["step"] for row in rows]
    figures = []
    phases = [name for name in names(rows, "seconds") if name != "step"]
    if phases:
        traces: list[Mapping[str, Any]] = []
        for phase, colour in zip(phases, _colours(len(phases)), strict=True):
            values = column(rows, "seconds", phase)
            traces.append(
                line(steps, values, phase, colour, stackgroup="phases", line={"width": 0})
                | {"fillcolor": colour}
            )
        caption = "Stacked: the top line is the whole step."
        figures.append(Figure("Seconds by phase", caption, traces, axes(STEP, "seconds"), COST, ""))
    phases = names(rows, "memory")
    if phases:
        traces = []
        for phase, colour in zip(phases, _colours(len(phases)), strict=True):
            values = [None if v is None else v / GB for v in column(rows, "memory", phase)]
            traces.append(line(steps, values, phase, colour))
        layout = axes(STEP, "GB")
        caption = "Highest memory during each phase: of the GPU, or of the process on a CPU."
        figures.append(Figure("Memory by phase", caption, traces, layout, COST, ""))
    return figures


def _colours(count: int) -> list[str]:
    return [SERIES[i % len(SERIES)] for i in range(count)]
