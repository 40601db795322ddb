"""Parts of Plotly figures, as plain dictionaries: lines, bands, bars, thresholds.

Colours are names of the style sheet (`var(--accent)`); the page replaces them by those of its
theme. Texts that come from recipes and prompts are escaped here: Plotly reads some markup.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ACCENT, LOSS, THIRD, FOURTH = "var(--accent)", "var(--loss)", "var(--third)", "var(--fourth)"
MUTED, LINE, SOFT = "var(--muted)", "var(--strong-line)", "var(--accent-soft)"
SERIES = (ACCENT, LOSS, THIRD, FOURTH, MUTED)
STEP = "training step"
LABEL_HEIGHT = 14  # pixels
MOST_POINTS = 1500  # of a line: more than a screen has pixels for


@dataclass(frozen=True)
class Figure:
    """One chart of a page.

    Attributes:
        title: Heading, shown outside of the chart.
        caption: How to read it.
        traces: Plotly's traces.
        layout: Plotly's layout, without colours and fonts of the theme.
        group: Heading under which it stands.
        text: What it shows, in words, for readers who do not see it.
    """

    title: str
    caption: str
    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""
    text: str = ""

    def record(self) -> dict[str, Any]:
        """Return the figure as the page's data holds it."""
        return {
            "title": self.title,
            "caption": self.caption,
            "traces": list(self.traces),
            "layout": dict(self.layout),
            "group": self.group,
            "text": self.text or self.title,
        }


def shown(text: object) -> str:
    """Return a text that Plotly shows as it is."""
    return html.escape(str(text), quote=False)


def thinned(count: int) -> range:
    """Return the positions of at most `MOST_POINTS` of a line's points, evenly."""
    return range(0, count, max(1, -(-count // MOST_POINTS)))


def line(
    x: Sequence[Any], y: Sequence[Any], name: str, colour: str = ACCENT, **more: Any
) -> dict[str, Any]:
    """Return a line; null values leave gaps."""
    kept = thinned(len(x))
    trace = {
        "type": "scatter",
        "mode": "lines",
        "name": shown(name),
        "x": [x[i] for i in kept],
        "y": [y[i] for i in kept],
        "line": {"color": colour, "width": 2},
        "hovertemplate": "%{y:.4~g}",
    }
    return trace | more


def points(
    x: Sequence[Any], y: Sequence[Any], name: str, colour: str = ACCENT, **more: Any
) -> dict[str, Any]:
    """Return points that a line connects."""
    return (
        line(x, y, name, colour, mode="lines+markers", marker={"color": colour, "size": 7}) | more
    )


def intervals(
    x: Sequence[Any],
    mean: Sequence[float | None],
    low: Sequence[float | None],
    high: Sequence[float | None],
    name: str,
    colour: str = ACCENT,
) -> dict[str, Any]:
    """Return points with the bars of their 95 % intervals."""
    above = [_gap(a, b) for a, b in zip(high, mean, strict=True)]
    below = [_gap(a, b) for a, b in zip(mean, low, strict=True)]
    bars = {"type": "data", "symmetric": False, "array": above, "arrayminus": below}
    bars |= {"color": colour, "thickness": 1.5, "width": 4}
    return points(x, mean, name, colour, error_y=bars)


def _gap(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def level(y: float, text: str, colour: str = LOSS) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a horizontal threshold and its label, for `shapes` and `annotations`."""
    shape = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y}
    shape |= {"line": {"color": colour, "width": 1, "dash": "dash"}}
    label = {"xref": "paper", "x": 0, "y": y, "text": shown(text), "showarrow": False}
    label |= {"xanchor": "left", "xshift": 4, "yanchor": "bottom"}
    label |= {"font": {"color": colour, "size": 11}}
    return shape, label


def moment(x: float, text: str, colour: str = ACCENT) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a vertical mark at a step and its label, for `shapes` and `annotations`.

    The label stands above the plot, where no threshold has its own.
    """
    shape = {"type": "line", "yref": "paper", "x0": x, "x1": x, "y0": 0, "y1": 1}
    shape |= {"line": {"color": colour, "width": 1.5, "dash": "dot"}}
    label = {"yref": "paper", "x": x, "y": 1, "text": shown(text), "showarrow": False}
    label |= {"xanchor": "left", "yanchor": "bottom", "font": {"color": colour, "size": 11}}
    return shape, label


def step_layout(
    steps: Sequence[float],
    unit: str,
    levels: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]] = (),
    moments: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]] = (),
) -> dict[str, Any]:
    """Return the layout of a curve by training step, with its thresholds and marks.

    The axis ends at the last step: Plotly would make room for the labels. Those of marks stand
    above one another, over the plot and below the legend, and point away from the nearer end; one
    that many marks have stands at the first.

    Args:
        steps: Steps of the curve.
        unit: Title of the other axis.
        levels: Thresholds.
        moments: Marks at steps.
    """
    first, last = (min(steps), max(steps)) if steps else (0, 1)
    room = 0.04 * ((last - first) or 1)  # half a point's width, even on a phone
    labels: dict[str, dict[str, Any]] = {}
    for _, label in sorted(moments, key=lambda one: float(one[0]["x0"])):
        if label["text"] not in labels:
            late = 2 * label["x"] > first + last
            place = {"xanchor": "right" if late else "left", "yshift": LABEL_HEIGHT * len(labels)}
            labels[label["text"]] = {**label, **place}
    layout = axes(STEP, unit)
    layout["xaxis"]["range"] = [first - room, last + room]
    if labels:
        layout["margin"] = {"l": 46, "r": 10, "t": 26 + LABEL_HEIGHT * len(labels), "b": 40}
        layout["legend"] = {"orientation": "h", "x": 0, "yanchor": "bottom", "font": {"size": 11}}
        layout["legend"]["y"] = 1.02 + 0.08 * len(labels)  # of the plot: a label and its distance
    layout = with_marks(layout, levels)
    layout["shapes"] += [shape for shape, _ in moments]
    layout["annotations"] += labels.values()
    return layout


def with_marks(
    layout: Mapping[str, Any], marks: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
) -> dict[str, Any]:
    """Return a layout with thresholds and marks."""
    shapes = [shape for shape, _ in marks]
    return {**layout, "shapes": shapes, "annotations": [label for _, label in marks]}


def axes(x: str, y: str, **more: Any) -> dict[str, Any]:
    """Return a layout with the titles of both axes."""
    return {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}, **more}
