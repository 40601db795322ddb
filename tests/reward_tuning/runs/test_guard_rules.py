"""The rules of the guards on scripted numbers: each fires where it should, and not beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from reward_tuning.runs.guard_rules import (
    RULES,
    acts,
    best_row,
    decided,
    fired_rules,
    history,
    rollbacks,
    row_of,
    stops,
)
from reward_tuning.schema.guards_section import GuardsSection
from reward_tuning.statistics.ratios import Ratio

DEFAULTS = GuardsSection()
NOISE = (-0.01, 0.01, -0.01, 0.01)
ERROR = 0.01 * math.sqrt(4 / 3) / 2  # of NOISE: its standard deviation, over the root of 4


def row(
    step: int,
    judge: float = 0.0,
    *,
    reward: tuple[float | None, float | None] = (1.0, 2.0),
    motion: tuple[float | None, float | None] = (1.0, 0.01),
    diversity: tuple[float | None, float | None] = (1.0, 0.01),
    drift: float | None = 0.1,
    noise: Sequence[float] = NOISE,
    fired: str = "",
    back_to: int | None = None,
) -> dict[str, Any]:
    """A row whose held-out judge differs from the base by `judge` in the mean."""
    each = [judge + one for one in noise]
    found = {
        "step": step,
        "reward": {"before": reward[0], "now": reward[1]},
        "measures": {"clip": {"mean": judge, "each": each}},
        "motion": motion[0],
        "motion_error": motion[1],
        "diversity": diversity[0],
        "diversity_error": diversity[1],
        "drift": drift,
        "fired": [{"rule": "held_out", "action": fired, "text": ""}] if fired else [],
        "best": None,
    }
    return found | ({} if back_to is None else {"back_to": back_to})


def fires(*rows: dict[str, Any], guards: GuardsSection = DEFAULTS) -> list[str]:
    return [fired.rule for fired in fired_rules(rows, guards, ["clip"])]


def test_every_rule_has_its_section() -> None:
    assert set(RULES) < set(GuardsSection.model_fields)


def test_a_held_out_judge_falls_twice() -> None:
    assert fires(row(20, -0.002), row(40, -0.05)) == ["held_out"]
    (found,) = fired_rules([row(20, -0.002), row(40, -0.05)], DEFAULTS, ["clip"])
    assert found.action == "stop"
    assert "clip fell on two evaluations in a row, to -0.002 and -0.05" in found.text
    assert "the training reward rose from 1 to 2" in found.text


def test_the_beginning_of_a_fall_may_be_within_the_noise() -> None:
    wide = (-0.05, 0.05, -0.05, 0.05)  # standard error 0.0289
    assert fires(row(20, 0.02, noise=wide), row(40, -0.2, noise=wide)) == ["held_out"]
    assert fires(row(20, 0.04, noise=wide), row(40, -0.2, noise=wide)) == []  # it rose


@pytest.mark.parametrize(
    "rows",
    [
        [row(20, -0.05)],  # one evaluation
        [row(20, -0.05), row(40, -0.04)],  # it has turned
        [row(20, -0.05), row(40, -0.05)],
        [row(20, 0.09), row(40, 0.05), row(60, 0.02)],  # falls twice, and is above the base
        [row(20, -0.001), row(40, -2.4 * ERROR)],  # within the noise of the base
        [row(20, -0.02), row(40, -0.05, reward=(2.0, 2.0))],  # the training reward stands still
        [row(20, -0.02), row(40, -0.05, reward=(None, 2.0))],
        [row(20, -0.02), row(40, -0.05, reward=(1.0, None))],
        [row(20, 0.0), row(40, 0.02), row(60, -0.05)],  # rose, then fell once
        [row(20, -0.02, noise=(0.0,)), row(40, -0.05, noise=(0.0,))],  # one prompt has no noise
    ],
)
def test_a_held_out_judge_that_does_not_fall_twice(rows: list[dict[str, Any]]) -> None:
    assert fires(*rows) == []


def test_the_number_of_standard_errors() -> None:
    rows = [row(20, -0.001), row(40, -2.6 * ERROR)]
    assert fires(*rows) == ["held_out"]
    lax = GuardsSection.model_validate({"held_out": {"errors": 2.7}})
    assert fires(*rows, guards=lax) == []


def test_without_held_out_judges_the_rule_is_off() -> None:
    assert fired_rules([row(20, -0.02), row(40, -0.05)], DEFAULTS, []) == []


@pytest.mark.parametrize(
    ("motion", "found"),
    [
        ((1.27, 0.01), ["motion"]),
        ((1.27, 0.03), []),  # its error reaches the bound
        ((0.78, 0.01), ["motion"]),
        ((0.78, 0.03), []),
        ((1.0, 0.01), []),
        ((None, None), []),  # a base without motion
        ((0.5, None), []),  # one prompt
    ],
)
def test_motion_outside_its_bounds(
    motion: tuple[float | None, float | None], found: list[str]
) -> None:
    assert fires(row(20, motion=motion)) == found


@pytest.mark.parametrize(
    ("diversity", "found"),
    [((0.77, 0.014), ["diversity"]), ((0.77, 0.016), []), ((1.9, 0.01), []), ((None, None), [])],
)
def test_diversity_below_its_bound(
    diversity: tuple[float | None, float | None], found: list[str]
) -> None:
    assert fires(row(20, diversity=diversity)) == found


@pytest.mark.parametrize(("drift", "found"), [(0.31, ["drift"]), (0.3, []), (None, [])])
def test_drift_above_its_bound(drift: float | None, found: list[str]) -> None:
    assert fires(row(20, drift=drift)) == found


def test_a_rule_that_is_off() -> None:
    off = GuardsSection.model_validate({"drift": "off"})
    assert fires(row(20, drift=9.0, motion=(9.0, 0.0)), guards=off) == ["motion"]


ROLLING = GuardsSection.model_validate({"drift": "rollback", "rollbacks": 1})


def test_a_rollback_leads_to_the_last_sound_best() -> None:
    sound = decided(row(20, 0.03), [], ROLLING, ["clip"])
    bad = decided(row(40, 0.09, drift=1.0), [sound], ROLLING, ["clip"])
    assert (acts(bad), bad["back_to"], bad["best"]) == ("rollback", 20, 20)
    assert rollbacks([sound, bad]) == 1
    assert [one["step"] for one in history([sound, bad])] == [20]
    again = decided(row(60, 0.09, drift=1.0), [sound, bad], ROLLING, ["clip"])
    assert acts(again) == "stop"
    assert again["fired"][0]["text"].endswith("no rollback of 1 is left")


def test_without_a_sound_evaluation_a_rollback_leads_to_the_start() -> None:
    bad = decided(row(20, 0.03, drift=1.0), [], ROLLING, ["clip"])
    assert (acts(bad), bad["back_to"]) == ("rollback", 0)
    assert history([bad]) == []


def test_at_the_last_step_a_rollback_is_a_stop() -> None:
    assert acts(decided(row(20, drift=1.0), [], ROLLING, ["clip"], final=True)) == "stop"


def test_a_rollback_undoes_the_evaluations_after_its_aim() -> None:
    """What fell before a rollback does not count as the first of two falls after it."""
    rows = [row(20, 0.01), row(40, 0.0), row(60, -0.03, fired="rollback", back_to=20)]
    assert [one["step"] for one in history([*rows, row(80)])] == [20, 80]
    assert fires(*rows, row(80, -0.05)) == []
    assert fires(*rows, row(80, 0.01), row(100, -0.05)) == ["held_out"]


def test_the_best_is_the_latest_that_the_highest_does_not_surely_beat() -> None:
    near = 0.05 - 0.5 * ERROR
    rows = [row(20, 0.01), row(40, 0.05), row(60, near, noise=(0.02, 0.0, -0.02, 0.0)), row(80)]
    found = best_row(rows, "clip")
    assert found is rows[2]
    # With the noise of the highest the difference is the same on every prompt: it is sure.
    rows[2] = row(60, near)
    assert best_row(rows, "clip") is rows[1]
    assert best_row(rows, None) is rows[3]
    assert best_row([], "clip") is None


def test_what_a_rule_stopped_is_the_best_only_where_nothing_else_is() -> None:
    rows = [row(20, 0.01), row(40, 0.05, fired="stop")]
    assert best_row(rows, "clip") is rows[0]
    assert best_row(rows, None) is rows[0]
    assert best_row(rows[1:], "clip") is rows[1]
    warned = [row(20, 0.01), row(40, 0.05, fired="warn")]
    assert best_row(warned, "clip") is warned[1]


def test_a_stop_holds_only_as_long_as_the_rules_say_so() -> None:
    rows = [decided(row(20, -0.01), [], DEFAULTS, ["clip"])]
    rows.append(decided(row(40, -0.05), rows, DEFAULTS, ["clip"]))
    assert acts(rows[-1]) == "stop"
    assert stops(rows, DEFAULTS, ["clip"])
    warning = GuardsSection.model_validate({"held_out": "warn"})
    assert not stops(rows, warning, ["clip"])
    assert not stops(rows[:1], DEFAULTS, ["clip"])
    assert not stops([], DEFAULTS, ["clip"])


def test_the_strongest_action_counts() -> None:
    rows = {
        "fired": [
            {"rule": "drift", "action": "warn"},
            {"rule": "motion", "action": "rollback"},
            {"rule": "held_out", "action": "stop"},
        ]
    }
    assert acts(rows) == "stop"
    assert acts({"fired": rows["fired"][:2]}) == "rollback"
    assert acts({"fired": rows["fired"][:1]}) == "warn"
    assert acts({"fired": []}) == "off"


def test_a_row_of_measured_values() -> None:
    base = {"clip": [0.5, 0.3, 0.4], "motion": [0.2, 0.1, 0.3], "contrast": [0.1, 0.1, 0.1]}
    now = {"clip": [0.6, 0.3, 0.5], "motion": [0.3, 0.1, 0.2], "contrast": [0.1, 0.1, 0.2]}
    found = row_of(7, 1.5, (0.1, 0.2), now, base, Ratio(0.9, 0.1), 0.25, ["clip"])
    clip = found["measures"]["clip"]
    assert (clip["base"], clip["now"]) == pytest.approx((0.4, 1.4 / 3))
    assert clip["mean"] == pytest.approx(0.2 / 3)
    assert clip["low"] <= clip["mean"] <= clip["high"]
    assert clip["each"] == pytest.approx([0.1, 0.0, 0.1])
    assert "each" not in found["measures"]["contrast"]
    assert found["motion"] == pytest.approx(1.0)
    assert (found["diversity"], found["diversity_error"], found["drift"]) == (0.9, 0.1, 0.25)
    assert found["reward"] == {"before": 0.1, "now": 0.2}
