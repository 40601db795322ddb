"""The final evaluation as trackers get it."""

from __future__ import annotations

from typing import Any

from reward_tuning.runs.evaluation_table import (
    LOSS_COLUMNS,
    REWARD_COLUMNS,
    evaluation_scalars,
    evaluation_table,
)

REWARD: dict[str, Any] = {
    "prompts": 16,
    "trained_on": ["hps"],
    "never_trained_on": ["clip"],
    "base": {"hps": 0.25, "clip": 0.5, "motion": None},
    "tuned": {"hps": 0.5, "clip": 0.375, "motion": 2.0},
    "difference": {
        "hps": {"mean": 0.25, "low": 0.125, "high": 0.375, "up": 16, "down": 0},
        "clip": {"mean": -0.125, "low": -0.25, "high": 0.0, "up": 1, "down": 15, "prompts": 15},
        "motion": {"mean": None, "low": None, "high": None},
    },
}


def test_a_reward_tuning() -> None:
    table = evaluation_table(REWARD)
    assert table is not None
    assert table.columns == REWARD_COLUMNS
    assert table.rows == [
        ["hps", "training judge", 0.25, 0.5, 0.25, 0.125, 0.375, 16],
        ["clip", "held-out judge", 0.5, 0.375, -0.125, -0.25, 0.0, 15],
        ["motion", "measure", None, 2.0, None, None, None, 16],
    ]
    assert evaluation_scalars(REWARD) == {
        "evaluation/base/hps": 0.25,
        "evaluation/base/clip": 0.5,
        "evaluation/tuned/hps": 0.5,
        "evaluation/tuned/clip": 0.375,
        "evaluation/tuned/motion": 2.0,
        "evaluation/difference/hps": 0.25,
        "evaluation/difference/clip": -0.125,
    }


def test_a_fine_tuning() -> None:
    found = {
        "steps": 3,
        "base": {"loss": 0.5, "by_level": {"0.1": 0.75, "0.9": 0.25}},
        "tuned": {"loss": 0.25, "by_level": {"0.1": 0.5, "0.9": 0.0}},
    }
    table = evaluation_table(found)
    assert table is not None
    assert table.columns == LOSS_COLUMNS
    assert table.rows == [
        ["mean", 0.5, 0.25, -0.25],
        ["at noise 0.1", 0.75, 0.5, -0.25],
        ["at noise 0.9", 0.25, 0.0, -0.25],
    ]
    assert evaluation_scalars(found) == {}


def test_a_fine_tuning_without_held_out_clips() -> None:
    assert evaluation_table({"steps": 3, "base": None, "tuned": None}) is None
