"""The columns of a step, the table of the first step, the cause of a gradient of zero."""

from dataclasses import dataclass

import pytest
import torch

from base_model.sampling.sigmas import sigma_table
from reward_tuning.gradient.methods import make_plan
from reward_tuning.tuning.rows import plan_table, why_zero


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
    told = why_zero(judges, means, {})
    assert "The hinge is reached: every clip's score is at its target (hps 0.26 of 0.25)" in told
    other = why_zero(judges, {**means, "loss": -0.1}, {})
    assert other.startswith("The scores of hps, clip do not change with the frames")


def test_equal_scores_are_the_cause_where_an_estimate_compares_them() -> None:
    judges, means = [Judge("hps", None)], {"loss": -0.3, "reward/hps": 0.3}
    told = why_zero(judges, means, {"hps": 0.0})
    assert told.startswith("hps gave every clip of a prompt the same score")
    assert why_zero(judges, means, {"hps": 0.1}).startswith("The scores of hps do not change")
