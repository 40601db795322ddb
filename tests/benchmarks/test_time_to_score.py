"""Curves against the clock, and what two loops' curves say of each other."""

from __future__ import annotations

import math

import pytest

from benchmarks.time_to_score import (
    Curve,
    Point,
    best,
    compare_curves,
    seconds_to,
    speed_up,
    train_curve,
)


def curve(*scores: float, every: float = 10.0) -> Curve:
    """Judge `a` at equal distances of the clock."""
    return [Point(i, every * i, every * i, {"a": score}) for i, score in enumerate(scores)]


def test_the_clock_stands_still_during_evaluations() -> None:
    now = cpu = 0.0
    evaluated = []

    def step() -> None:
        nonlocal now, cpu
        now += 3.0
        cpu += 2.0

    def evaluate() -> dict[str, float]:
        nonlocal now, cpu
        now += 100.0
        cpu += 100.0
        evaluated.append(now)
        return {"a": float(len(evaluated))}

    got = train_curve(
        step,
        evaluate,
        {"a": 0.0},
        seconds=20.0,
        points=2,
        clock=lambda: now,
        cpu_clock=lambda: cpu,
    )
    # 10 s are crossed by the fourth step, 20 s by the seventh: both are finished and counted.
    assert got == [
        Point(0, 0.0, 0.0, {"a": 0.0}),
        Point(4, 12.0, 8.0, {"a": 1.0}),
        Point(7, 21.0, 14.0, {"a": 2.0}),
    ]


def test_a_slow_step_may_cross_two_distances() -> None:
    now = 0.0

    def step() -> None:
        nonlocal now
        now += 30.0

    got = train_curve(
        step, lambda: {"a": now}, {"a": 0.0}, seconds=30.0, points=3, clock=lambda: now
    )
    assert [point.steps for point in got] == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("target", "seconds"),
    [(1.0, 0.0), (0.5, 0.0), (1.5, 5.0), (2.0, 10.0), (3.0, 35.0), (4.0, 40.0), (4.1, math.inf)],
)
def test_seconds_to_a_score_straight_between_points(target: float, seconds: float) -> None:
    """A fall between two points does not undo what was reached."""
    assert seconds_to(curve(1.0, 2.0, 1.5, 2.0, 4.0), "a", target) == pytest.approx(seconds)


def test_best_is_not_the_last() -> None:
    assert best(curve(1.0, 3.0, 2.0), "a") == 3.0


def test_speed_up_is_the_ratio_of_the_medians() -> None:
    theirs = [curve(0.0, 1.0), curve(0.0, 0.5, 1.0), curve(0.0, 0.1, 0.2)]  # 10, 20, never
    ours = [curve(0.0, 2.0), curve(0.0, 4.0), curve(0.0, 1.0)]  # 5, 2.5, 10
    assert speed_up(theirs, ours, "a", 1.0) == {
        "target": 1.0,
        "published_seconds": 20.0,
        "ours_seconds": 5.0,
        "ratio": 4.0,
        "at_least": False,
    }


def test_a_score_the_published_loop_never_reaches_gives_a_lower_bound() -> None:
    theirs, ours = [curve(0.0, 0.5, 0.9)], [curve(0.0, 2.0)]
    assert speed_up(theirs, ours, "a", 1.0) == {
        "target": 1.0,
        "published_seconds": None,
        "ours_seconds": 5.0,
        "ratio": 4.0,
        "at_least": True,
    }


def test_a_score_we_never_reach_gives_no_ratio() -> None:
    got = speed_up([curve(0.0, 1.0)], [curve(0.0, 0.5)], "a", 1.0)
    assert (got["ours_seconds"], got["ratio"], got["at_least"]) == (None, None, False)
    assert got["published_seconds"] == 10.0


def test_compared_at_the_best_of_either_loop() -> None:
    theirs, ours = [curve(1.0, 1.5, 2.0)], [curve(1.0, 3.0, 5.0)]
    got = compare_curves(theirs, ours, "a")
    assert (got["base"], got["best"]) == (1.0, {"published": 2.0, "ours": 5.0})
    assert got["at_published_best"]["ratio"] == pytest.approx(20.0 / 5.0)
    assert got["at_ours_best"]["published_seconds"] is None
    assert got["at_ours_best"]["ratio"] == pytest.approx(20.0 / 20.0)
    assert [level["target"] for level in got["levels"]] == [1.25, 1.5, 1.75, 2.0]
    assert [level["ratio"] for level in got["levels"]] == pytest.approx([4.0] * 4)


def test_a_loop_that_does_not_rise_has_no_best_to_be_reached() -> None:
    got = compare_curves([curve(1.0, 0.9)], [curve(1.0, 2.0)], "a")
    assert got["at_published_best"] is None
    assert got["levels"] == []
    assert got["at_ours_best"]["at_least"]
