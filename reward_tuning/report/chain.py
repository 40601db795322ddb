"""The chain of sampler steps: which were differentiated, at which noise level, with what gradient.

The noise levels are those of `base_model.sampling.sigmas`, by the formula alone, since a report
loads no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reward_tuning.report.figures import ACCENT, LOSS, SOFT, Figure, line
from reward_tuning.report.run_rows import Row, number

GROUP = "The chain of sampler steps"
COLUMNS = 120  # of the heat map; more training steps are averaged
LAST_TIME = 0.001
MOST_STEPS = 10_000


def sigma_levels(sampling: Mapping[str, Any]) -> list[float]:
    """Return the noise levels of the training rollouts, the last 0; empty without their number.

    Args:
        sampling: Section of a recipe as plain data.
    """
    steps, shift, strength = (sampling.get(key) for key in ("steps", "shift", "strength"))
    if not isinstance(steps, int) or isinstance(steps, bool) or not 1 <= steps <= MOST_STEPS:
        return []
    mu = shift if isinstance(shift, int | float) else 1.0
    kept = strength if isinstance(strength, int | float) else 1.0
    gap = (1 - LAST_TIME) / max(1, steps - 1)
    times = [1 - i * gap for i in range(steps)]
    table = [math.exp(mu) / (math.exp(mu) + 1 / t - 1) for t in times]
    return [*table[steps - min(int(steps * kept), steps) :], 0.0]


def chain_figures(rows: Sequence[Row], recipe: Mapping[str, Any]) -> list[Figure]:
    """Return the plan on the sigma table, and the gradient norm of each step of the chain.

    Args:
        rows: Rows of metrics.jsonl.
        recipe: The recipe as plain data.
    """
    seen = [(row["step"], one["step"], one) for row in rows for one in _active(row)]
    if not seen:
        return []
    sampling = recipe.get("sampling")
    sigmas = sigma_levels(sampling if isinstance(sampling, Mapping) else {})
    return [_plan(seen, len(rows), sigmas), _norms(seen, rows)]


def _active(row: Row) -> list[Row]:
    """Return what a row says of its active steps; what a damaged one says is left out."""
    found = row.get("active_steps")
    return [
        one
        for one in (found if isinstance(found, list) else ())
        if isinstance(one, dict) and type(one.get("step")) is int and 0 <= one["step"] < MOST_STEPS
    ]


def _plan(seen: Sequence[tuple[int, int, Row]], count: int, sigmas: Sequence[float]) -> Figure:
    steps = list(range(max([len(sigmas) - 1, *(1 + at for _, at, _ in seen)])))
    rows_with = {at: {row for row, where, _ in seen if where == at} for at in steps}
    share = [len(rows_with[at]) / count for at in steps]
    traces: list[Mapping[str, Any]] = [
        {
            "type": "bar",
            "name": "active in this share of training steps",
            "x": steps,
            "y": share,
            "marker": {"color": SOFT, "line": {"color": ACCENT, "width": 1}},
            "hovertemplate": "%{y:.0%}",
        }
    ]
    if sigmas:
        x = list(range(len(sigmas)))
        marker = {"color": LOSS, "size": 6}
        traces.append(
            line(x, sigmas, "noise level sigma", LOSS, mode="lines+markers", marker=marker)
        )
    layout = {
        "xaxis": {"title": {"text": "sampler step"}, "dtick": max(1, len(steps) // 16)},
        "yaxis": {"title": {"text": "sigma, share"}, "range": [0, 1.05]},
    }
    often = max(steps, key=lambda at: share[at])
    return Figure(
        "Plan on the sigma table",
        "Bars: how often the gradient went through a sampler step. Line: noise from 1 (pure noise) "
        "to 0 (the clip). Steps beyond the line are restarts, which noise the end again.",
        traces,
        layout,
        GROUP,
        f"sampler step {often} was active most often, in {share[often]:.0%} of the training steps",
    )


def _norms(seen: Sequence[tuple[int, int, Row]], rows: Sequence[Row]) -> Figure:
    order = [row["step"] for row in rows]
    width = -(-len(order) // COLUMNS)
    place = {step: i // width for i, step in enumerate(order)}
    depth = 1 + max(at for _, at, _ in seen)
    columns = 1 + max(place.values())
    cells: list[list[list[float]]] = [[[] for _ in range(columns)] for _ in range(depth)]
    for step, at, one in seen:
        norm = number(one, "grad_norm")
        if norm is not None and norm > 0:
            cells[at][place[step]].append(norm)
    means = [[sum(c) / len(c) if c else None for c in row] for row in cells]
    logs = [[None if m is None else math.log10(m) for m in row] for row in means]
    known = [v for row in logs for v in row if v is not None]
    ticks = list(range(math.floor(min(known)), math.ceil(max(known)) + 1)) if known else []
    heat = {
        "type": "heatmap",
        "x": [order[i * width] for i in range(columns)],
        "y": list(range(depth)),
        "z": logs,
        "customdata": means,
        "hovertemplate": "training step %{x}, sampler step %{y}: %{customdata:.3~g}<extra></extra>",
        "hoverongaps": False,
        "colorbar": {"tickvals": ticks, "ticktext": [f"1e{t}" for t in ticks], "thickness": 10},
        "colorscale": [[0, SOFT], [1, ACCENT]],
    }
    layout = {
        "xaxis": {"title": {"text": "training step"}},
        "yaxis": {"title": {"text": "sampler step"}, "dtick": max(1, depth // 12)},
    }
    note = f" Each column is the mean of {width} training steps." if width > 1 else ""
    return Figure(
        "Gradient norm by step of the chain",
        f"How much each active sampler step gave to the gradient; blank where it was not active."
        f"{note}",
        [heat],
        layout,
        GROUP,
        "gradient norm of each sampler step at each training step",
    )
