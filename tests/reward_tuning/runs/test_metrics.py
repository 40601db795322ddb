"""Rows, warnings and the table of the first step."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from base_model.sampling.sigmas import sigma_table
from reward_tuning.errors import TuningError
from reward_tuning.gradient.engine import StepReport
from reward_tuning.gradient.methods import make_plan
from reward_tuning.runs.metrics import MetricsLog, PhaseClock
from reward_tuning.tuning.rows import (
    CLIPPING_STEPS,
    VANISHING_STEPS,
    GradientWatch,
    plan_table,
    step_row,
)
from reward_tuning.tuning.step import BatchReport


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, *steps: int) -> None:
    log = MetricsLog(path, steps[0] - 1)
    for step in steps:
        log.write({"step": step, "loss": step / 2})
    log.flush()
    log.close()


def test_rows_after_the_checkpoint_are_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 1, 2, 3, 4, 5)
    with path.open("a") as file:
        file.write('{"step": 6, "lo')  # killed while writing
    write(path, 4, 5, 6)
    assert [row["step"] for row in rows(path)] == [1, 2, 3, 4, 5, 6]


def test_nan_and_infinity_become_null(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    seen = {"step": 0, "grad_norm": math.nan, "adjoint_norm": None}
    log.write({"step": 1, "loss": math.nan, "reward": {"hps": math.inf}, "active_steps": [seen]})
    log.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text) == {
        "step": 1,
        "loss": None,
        "reward": {"hps": None},
        "active_steps": [{"step": 0, "grad_norm": None, "adjoint_norm": None}],
    }


def test_tensorboard_has_the_same_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    for step in (1, 2):
        log.write(
            {
                "step": step,
                "reward": {"hps": 0.25 * step},
                "drift": None,
                "active_steps": [{"step": 7, "grad_norm": 2.0, "adjoint_norm": 4.0}],
            }
        )
    log.close()
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    assert sorted(board.Tags()["scalars"]) == [
        "reward/hps",
        "step-07/adjoint_norm",
        "step-07/grad_norm",
    ]
    assert [(e.step, e.value) for e in board.Scalars("reward/hps")] == [(1, 0.25), (2, 0.5)]


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    log = MetricsLog.__new__(MetricsLog)
    log._path = tmp_path / "metrics.jsonl"
    with pytest.raises(TuningError, match=r"metrics.jsonl could not be written: No space left"):
        log.write({"step": 1})


def step_report(step: int, gradient_norm: float, adjoint_norm: float = 1.0) -> StepReport:
    return StepReport(step, True, 0.25, adjoint_norm, gradient_norm, 0.0, 0.0)


def test_row() -> None:
    clock = PhaseClock(torch.device("cpu"))
    with clock("rollout"):
        pass
    with clock("sweep"):
        pass
    reports = [
        BatchReport(
            0.5, {"hps": 0.2}, 1.0, 0.01, (step_report(3, 2.0), step_report(1, 1.0)), 12, 5
        ),
        BatchReport(0.7, {"hps": 0.4}, 2.0, 0.03, (step_report(3, 4.0, 3.0),), 16, 7),
    ]
    row = step_row(
        9,
        reports,
        {"loss": 0.6, "motion": 1.5, "reward/hps": 0.3},
        grad_norm=0.5,
        learning_rate=1e-3,
        bad_steps=1,
        clock=clock,
    )
    assert row["step"] == 9
    assert (row["loss"], row["motion"], row["reward"]) == (0.6, 1.5, {"hps": 0.3})
    assert row["rollout"] == {"steps": 28, "full_steps": 12}
    assert row["drift"] == pytest.approx(0.02)
    assert [seen["step"] for seen in row["active_steps"]] == [1, 3]
    assert [seen["grad_norm"] for seen in row["active_steps"]] == [1.0, 3.0]
    assert [seen["adjoint_norm"] for seen in row["active_steps"]] == [1.0, 2.0]
    assert row["active_steps"][0]["weight"] == 0.25
    assert (row["grad_norm"], row["learning_rate"], row["bad_steps"]) == (0.5, 1e-3, 1)
    phases = {k: v for k, v in row["seconds"].items() if k != "step"}
    assert set(phases) == {"rollout", "sweep"}
    assert row["seconds"]["step"] == pytest.approx(sum(phases.values()))
    assert row["memory"]["rollout"] > 10_000_000  # this process
    json.dumps(row)


def test_clock_adds_up_and_tells() -> None:
    told: list[str] = []
    clock = PhaseClock(torch.device("cpu"), told.append)
    kept = []
    for _ in range(2):
        with clock("rollout"):
            kept.append(torch.ones(200_000).sum())
        kept.append(torch.tensor(clock.seconds["rollout"]))
    assert told == ["rollout", "rollout"]
    assert kept[3] > kept[1] > 0


def test_vanishing_gradient_is_told_once() -> None:
    watch = GradientWatch(1.0)
    told = [watch.see(5e-4) for _ in range(VANISHING_STEPS * 3)]
    assert [i for i, text in enumerate(told) if text] == [VANISHING_STEPS - 1]
    assert "method.rescale=1" in str(told[VANISHING_STEPS - 1])


def test_a_single_small_gradient_is_no_warning() -> None:
    watch = GradientWatch(1.0)
    assert [watch.see(1e-4 if i % VANISHING_STEPS else 1e-2) for i in range(30)] == [None] * 30


def test_constant_clipping_is_told_once() -> None:
    watch = GradientWatch(0.5)
    told = [watch.see(2.0) for _ in range(3 * CLIPPING_STEPS)]
    assert [i for i, text in enumerate(told) if text] == [CLIPPING_STEPS - 1]
    assert "max_grad_norm" in str(told[CLIPPING_STEPS - 1])


@pytest.mark.parametrize("limit", [None, 0.5])
def test_clipping_now_and_then_is_no_warning(limit: float | None) -> None:
    watch = GradientWatch(limit)
    assert not any(watch.see(0.1 if limit and i % 10 == 0 else 2.0) for i in range(60))


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
