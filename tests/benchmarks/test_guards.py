"""The benchmark of the guards: its report from its lines, and its clock."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.guards import ARMS, GuardClock, report
from reward_tuning.progress import ProgressEvent
from reward_tuning.schema.loading import load_recipe


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_has_the_default_guards(arm: str) -> None:
    recipe = load_recipe(ARMS[arm][0], ARMS[arm][1])
    assert recipe.guards == type(recipe.guards)()
    assert recipe.train.steps == 120


def test_only_the_stages_of_the_guards_count(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 10.0, 11.0, 13.0, 20.0, 25.0])
    monkeypatch.setattr("benchmarks.guards.time.perf_counter", lambda: next(times))
    clock = GuardClock()
    for stage in ("training", "guards: base", "guards: base", "training", "guards", "evaluation"):
        clock(ProgressEvent(stage))
    assert clock.seconds == (13 - 10) + (25 - 20)


def test_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "step": 40,
        "measures": {"clip_held_out": {"mean": -0.1, "low": -0.2, "high": -0.05}},
        "motion": 1.3,
        "diversity": 0.6,
        "drift": 0.34,
        "fired": [{"rule": "held_out", "action": "stop", "text": "..."}],
    }
    line = {
        "arm": "pushed",
        "seed": 0,
        "seconds": 50.0,
        "guard_seconds": 5.0,
        "rows": [row],
        "checkpoint": {"step": 20, "of": 120, "stopped_at": 40},
        "difference": {"clip_held_out": {"mean": 0.01, "low": 0.0, "high": 0.02}},
    }
    (tmp_path / "runs.jsonl").write_text(json.dumps(line) + "\n")
    report(tmp_path)
    shown = capsys.readouterr().out
    assert (
        "| pushed | 0 | 40 | -0.100 [-0.200, -0.050] | 1.30 | 0.60 | 0.34 | held_out (stop) |"
        in shown
    )
    assert "| pushed | 0 | 40 of 120 | step 20 | +0.010 [+0.000, +0.020] | 10 |" in shown
