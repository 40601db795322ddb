"""Any tracker receives the same numbers; one that fails ends the run with a message."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.runs import metrics
from reward_tuning.runs.metrics import MetricsLog
from reward_tuning.runs.tensorboard import TensorBoard
from reward_tuning.runs.trackers import TRACKERS, Tracker


class Listener:
    """A tracker that writes down its calls."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.calls: list[tuple[object, ...]] = [("start", folder, steps)]

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        if scalars.get("loss") == 13.0:
            raise OSError(28, "No space left on device")
        self.calls.append((step, dict(scalars)))

    def flush(self) -> None:
        self.calls.append(("flush",))

    def close(self) -> None:
        self.calls.append(("close",))


def test_tensorboard_is_the_tracker_of_every_run() -> None:
    assert (TensorBoard,) == TRACKERS


def test_what_a_tracker_receives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Listener] = []

    def start(folder: Path, steps: int) -> Tracker:
        made.append(Listener(folder, steps))
        return made[-1]

    monkeypatch.setattr(metrics, "TRACKERS", (start, start))
    log = MetricsLog(tmp_path / "metrics.jsonl", 4)
    log.track({"step": 4, "held_out": {"loss": 0.5, "0.1": None}})
    log.write({"step": 5, "loss": 1.0, "drift": None, "batches": [[2, 5]], "bad_steps": 0})
    log.flush()
    with pytest.raises(TuningError, match="could not be written: No space left on device"):
        log.write({"step": 6, "loss": 13.0})
    log.close()
    for tracker in made:
        assert tracker.calls == [
            ("start", tmp_path, 4),
            (4, {"held_out/loss": 0.5}),
            (5, {"loss": 1.0, "bad_steps": 0}),
            ("flush",),
            ("close",),
        ]
