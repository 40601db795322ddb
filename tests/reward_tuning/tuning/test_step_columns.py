"""The row of a step, from the reports of its batches."""

from __future__ import annotations

import json

import pytest

from reward_tuning.gradient.engine import StepReport
from reward_tuning.tuning.step import BatchReport
from reward_tuning.tuning.step_columns import step_columns


def step_report(step: int, gradient_norm: float, adjoint_norm: float = 1.0) -> StepReport:
    return StepReport(step, True, 0.25, adjoint_norm, gradient_norm, 0.0, 0.0)


def test_columns() -> None:
    reports = [
        BatchReport(
            0.5, {"hps": 0.2}, 1.0, 0.01, (step_report(3, 2.0), step_report(1, 1.0)), 12, 5, 2
        ),
        BatchReport(0.7, {"hps": 0.4}, 2.0, 0.03, (step_report(3, 4.0, 3.0),), 16, 7, 1),
    ]
    row = step_columns(reports, {"loss": 0.6, "motion": 1.5, "reward/hps": 0.3}, 0.25)
    assert (row["motion"], row["reward"], row["replay"]) == (1.5, {"hps": 0.3}, 0.25)
    assert row["rollout"] == {"steps": 28, "full_steps": 12, "kept_steps": 3}
    assert row["drift"] == pytest.approx(0.02)
    assert [seen["step"] for seen in row["active_steps"]] == [1, 3]
    assert [seen["grad_norm"] for seen in row["active_steps"]] == [1.0, 3.0]
    assert [seen["adjoint_norm"] for seen in row["active_steps"]] == [1.0, 2.0]
    assert row["active_steps"][0]["weight"] == 0.25
    json.dumps(row)
