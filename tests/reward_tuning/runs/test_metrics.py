"""Rows of metrics.jsonl and of the trackers; the clock of a step's phases."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.runs.metrics import MetricsLog


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
