"""The columns of a step, the table of the first step, the cause of a gradient of zero."""

import json
from dataclasses import dataclass

import pytest
import torch

from base_model.sampling.sigmas import sigma_table
from reward_tuning.gradient.engine import StepReport
from reward_tuning.gradient.methods import make_plan
from reward_tuning.tuning.rows import plan_table, step_columns, why_zero
from reward_tuning.tuning.step import BatchReport


def step_report(step: int, gradient_norm: float, adjoint_norm: float = 1.0) -> StepReport:
    return StepReport(step, True, 0.25, adjoint_norm, gradient_norm, 0.0, 0.0)


def test_columns() -> None:
    reports = [
        BatchReport(
            0.5, {"hps": 0.2}, 1.0, 0.01, (step_report(3, 2.0), step_report(1, 1.0)), 12, 5
        ),
        BatchReport(0.7, {"hps": 0.4}, 2.0, 0.03, (step_report(3, 4.0, 3.0),), 16, 7),
    ]
    row = step_columns(reports, {"loss": 0.6, "motion": 1.5, "reward/hps": 0.3}, 0.25)
    assert (row["motion"], row["reward"], row["replay"]) == (1.5, {"hps": 0.3}, 0.25)
    assert row["rollout"] == {"steps": 28, "full_steps": 12}
    assert row["drift"] == pytest.approx(0.02)
    assert [seen["step"] for seen in row["active_steps"]] == [1, 3]
    assert [seen["grad_norm"] for seen in row["active_steps"]] == [1.0, 3.0]
    assert [seen["adjoint_norm"] for seen in row["active_steps"]] == [1.0, 2.0]
    assert row["active_steps"][0]["weight"] == 0.25
    json.dumps(row)


def test_plan_table_of_fresh_looks() -> None:
    sigmas = sigma_table(16)
    chain_too = plan_table(sigmas, make_plan("draft_lv", torch.Generator(), sigmas)).splitlines()
    assert len(chain_too) == 2 + 16 + 2
    assert [line.split()[:3] for line in chain_too[-2:]] == [
        ["16", "0.0500", "0.0500"],
        ["17", "0.0500", "0.0500"],
    ]
    assert chain_too[-1].endswith(
        "active, the end noised again and taken to 0.0000; gradient scale 20"
    )
    only = plan_table(sigmas, make_plan("direct_align", torch.Generator(), sigmas)).splitlines()
    assert len(only) == 2
    assert only[1].split()[0] == "16"


def test_plan_table() -> None:
    sigmas = sigma_table(16)
    plan = make_plan("draft_k", torch.Generator(), sigmas, active_steps=2)
    lines = plan_table(sigmas, plan).splitlines()
    steps = lines[2:]
    assert len(steps) == 16
    assert [line.split()[0] for line in steps if line.endswith("active")] == ["13", "14", "15"]
    assert float(steps[0].split()[1]) == 1.0
    assert float(steps[-1].split()[2]) == pytest.approx(0.0027, abs=1e-4)


@dataclass
class Judge:
    label: str
    target: float | None


def test_a_hinge_is_the_cause_only_where_the_loss_is_zero() -> None:
    judges = [Judge("hps", 0.25), Judge("clip", None)]
    means = {"loss": 0.0, "reward/hps": 0.26, "reward/clip": 0.1}
    told = why_zero(judges, means)
    assert "The hinge is reached: every clip's score is at its target (hps 0.26 of 0.25)" in told
    other = why_zero(judges, {**means, "loss": -0.1})
    assert other.startswith("The scores of hps, clip do not change with the frames")
