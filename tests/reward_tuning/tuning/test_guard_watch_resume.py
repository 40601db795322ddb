"""A run with guards that is killed anywhere ends in the bytes of one that was never stopped.

The run warns, rolls back, and stops: every decision is made again, or read back, alike.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.reward_tuning.tuning.fooled import fooled_overrides, world
from tests.reward_tuning.tuning.test_resume import DEADLINE, assert_same, finish, start

__all__ = ["world"]  # a fixture
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform == "win32" or torch.cuda.is_available(), reason="runs are forked, on the CPU"
    ),
]


@pytest.fixture(scope="module")
def overrides(world: Path) -> tuple[str, ...]:
    return (
        *fooled_overrides(world, "bright"),
        "train.learning_rate=0.05",
        "train.ema_decay=0.5",
        "train.checkpoint_every=3",
        "train.steps=14",
        "guards.held_out=warn",
        "guards.drift={action: rollback, high: 0.5}",
        "guards.rollbacks=1",
    )


@pytest.fixture(scope="module")
def uninterrupted(
    world: Path, overrides: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("whole") / "run"
    finish(world, output, overrides=overrides)
    return output


def rows_of(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "guards.jsonl").read_text().splitlines()
    return [{**json.loads(line), "seconds": None} for line in lines]


def test_the_run_rolls_back_and_then_stops(uninterrupted: Path) -> None:
    actions = [
        [one["action"] for one in row["fired"] if one["rule"] == "drift"]
        for row in rows_of(uninterrupted)
    ]
    assert [action for action in actions if action] == [["rollback"], ["stop"]]
    assert actions[0] == []  # so that it goes back to a checkpoint
    checkpoint = json.loads((uninterrupted / "evaluation.json").read_text())["checkpoint"]
    assert checkpoint["stopped_at"] < 14


SLOW = pytest.mark.slow
KILLS = [
    ("guards", 0, "step 2 of 4"),  # in the first evaluation, before any checkpoint
    ("training", 4, "sweep"),  # a row of step 4, a checkpoint of step 3
    ("training", 8, "rollout"),
    ("evaluation of tuned", 0, "step 1 of 4"),
    pytest.param(("guards: base", 0, "step 2 of 4"), marks=SLOW),
    pytest.param(("training", 6, "rollout"), marks=SLOW),
    pytest.param(".step-000006.tmp", marks=SLOW),  # while its checkpoint is renamed
    pytest.param(".lora.tmp", marks=SLOW),
]


@pytest.mark.parametrize("kill_at", KILLS, ids=str)
def test_killed(
    world: Path,
    overrides: tuple[str, ...],
    uninterrupted: Path,
    tmp_path: Path,
    kill_at: tuple[str, int, str] | str,
) -> None:
    output = tmp_path / "run"
    process = start(world, output, kill_at=kill_at, overrides=overrides)
    process.join(DEADLINE)
    assert process.exitcode == -signal.SIGKILL
    assert not (output / "evaluation.json").exists()
    finish(world, output, resume=True, overrides=overrides)
    assert_same(output, uninterrupted)
    assert rows_of(output) == rows_of(uninterrupted)
    kept = [sorted(p.name for p in (f / "checkpoints").iterdir()) for f in (output, uninterrupted)]
    assert kept[0] == kept[1]
    base = "guards-base.safetensors"
    assert (output / base).read_bytes() == (uninterrupted / base).read_bytes()
