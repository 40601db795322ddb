"""How long a loop needs to a held-out score: curves, and what they say of each other."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Point:
    """An evaluated moment of a training.

    Attributes:
        steps: Optimiser steps so far.
        seconds: On the clock, which stands still during evaluations.
        cpu_seconds: Of the process in that time; what is left of `seconds` on a busy machine.
        scores: Held-out mean of each judge.
    """

    steps: int
    seconds: float
    cpu_seconds: float
    scores: Mapping[str, float]


Curve = Sequence[Point]


def train_curve(
    step: Callable[[], None],
    evaluate: Callable[[], Mapping[str, float]],
    base: Mapping[str, float],
    *,
    seconds: float,
    points: int,
    clock: Callable[[], float] = time.perf_counter,
    cpu_clock: Callable[[], float] = time.process_time,
) -> list[Point]:
    """Train for a time and evaluate at equal distances of it.

    Args:
        step: Makes one update; not over before its work is done.
        evaluate: Held-out means of the adapter as it is.
        base: Those before training.
        seconds: On the clock. The step that crosses a distance is finished and counted.
        points: Evaluations, the last one at the end.
        clock: Of the wall.
        cpu_clock: Of the process.

    Returns:
        `points` + 1 points, the first at 0 seconds.
    """
    curve = [Point(0, 0.0, 0.0, dict(base))]
    steps, spent, spent_cpu = 0, 0.0, 0.0
    for number in range(1, points + 1):
        while spent < seconds * number / points:
            began, began_cpu = clock(), cpu_clock()
            step()
            spent += clock() - began
            spent_cpu += cpu_clock() - began_cpu
            steps += 1
        curve.append(Point(steps, spent, spent_cpu, dict(evaluate())))
    return curve


def best(curve: Curve, metric: str) -> float:
    """Highest score of a curve."""
    return max(point.scores[metric] for point in curve)


def seconds_to(curve: Curve, metric: str, target: float) -> float:
    """When a curve first reaches a score, straight between its points; infinity for never."""
    before = None
    for point in curve:
        score = point.scores[metric]
        if score >= target:
            if before is None:
                return point.seconds
            low = before.scores[metric]
            share = (target - low) / (score - low)
            return before.seconds + share * (point.seconds - before.seconds)
        before = point
    return math.inf


def speed_up(
    published: Sequence[Curve], ours: Sequence[Curve], metric: str, target: float
) -> dict[str, Any]:
    """Median times of both loops to one score, and how many times faster ours is.

    Args:
        published: One curve a seed.
        ours: Likewise.
        metric: A judge's name.
        target: The score.

    Returns:
        `target`, `published_seconds`, `ours_seconds` (null: most seeds never reach it) and `ratio`:
        published over ours, null where ours does not reach it. Where the published loop does not,
        its whole time on the clock stands for it and `at_least` is true.
    """
    times = {
        "published": statistics.median(seconds_to(curve, metric, target) for curve in published),
        "ours": statistics.median(seconds_to(curve, metric, target) for curve in ours),
    }
    at_least = math.isinf(times["published"])
    whole = statistics.median(curve[-1].seconds for curve in published)
    spent = whole if at_least else times["published"]
    known = 0.0 < times["ours"] < math.inf
    return {
        "target": target,
        **{f"{loop}_seconds": _finite(seconds) for loop, seconds in times.items()},
        "ratio": spent / times["ours"] if known else None,
        "at_least": at_least and known,
    }


def compare_curves(
    published: Sequence[Curve], ours: Sequence[Curve], metric: str
) -> dict[str, Any]:
    """`speed_up` at the best score of either loop (median over its seeds), and between.

    Returns:
        `base`, `best` of each loop, `at_published_best` and `at_ours_best` (null where that loop
        does not rise above the base), and `levels`: at a quarter, half, three quarters and the
        whole of the way to the lower of the two, where both can be compared.
    """
    base = published[0][0].scores[metric]
    tops = {
        "published": statistics.median(best(curve, metric) for curve in published),
        "ours": statistics.median(best(curve, metric) for curve in ours),
    }
    report: dict[str, Any] = {"metric": metric, "base": base, "best": tops}
    for loop, top in tops.items():
        rises = top > base
        report[f"at_{loop}_best"] = speed_up(published, ours, metric, top) if rises else None
    gain = min(tops.values()) - base
    shares = (0.25, 0.5, 0.75, 1.0) if gain > 0 else ()
    report["levels"] = [speed_up(published, ours, metric, base + s * gain) for s in shares]
    return report


def _finite(seconds: float) -> float | None:
    return None if math.isinf(seconds) else seconds
