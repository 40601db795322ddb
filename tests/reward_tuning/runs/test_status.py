"""status.json: what a run does now, and how it ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from reward_tuning.progress import ProgressEvent
from reward_tuning.runs.control import RunStopped
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.status import (
    StatusFile,
    is_alive,
    is_running,
    kept_status,
    read_status,
    unfinished_text,
)
from tests.reward_tuning.full_disk import largest_file


class Clocked:
    """A status whose seconds the test counts."""

    def __init__(self, root: Path) -> None:
        self.time = 100.0
        self.root = root
        self.file = StatusFile(root, lambda: self.time, lambda: 1e9 + self.time)

    def at(self, time: float, *event: Any, **more: Any) -> dict[str, Any]:
        self.time = 100.0 + time
        self.file.update(ProgressEvent(*event, **more))
        return self.read()

    def read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / "status.json").read_text())
        return found


@pytest.fixture
def status(tmp_path: Path) -> Clocked:
    return Clocked(tmp_path)


def test_a_status_says_what_runs_and_since_when(status: Clocked) -> None:
    found = status.at(2.0, "training", 3, 9, "sweep")
    process = psutil.Process()
    assert found == {
        "format": 1,
        "state": "running",
        "message": "",
        "stage": "training",
        "phase": "sweep",
        "done": 3,
        "total": 9,
        "step": 3,
        "steps": 9,
        "seconds_per_step": None,
        "left": None,
        "began": 1e9 + 100,
        "time": 1e9 + 102,
        "pid": os.getpid(),
        "started": process.create_time(),
    }
    assert is_alive(found)
    assert [path.name for path in status.root.iterdir()] == ["status.json"]


def test_it_is_written_at_most_once_a_second(status: Clocked) -> None:
    assert status.at(0.0, "training", 1, 9, "rollout")["phase"] == "rollout"
    assert status.at(0.9, "training", 1, 9, "sweep")["phase"] == "rollout"
    assert status.at(1.0, "training", 1, 9, "update")["phase"] == "update"
    assert status.at(1.1, "paused", 1, 9)["state"] == "paused"  # the state at once
    assert status.at(1.2, "training", 1, 9)["state"] == "running"


def test_the_time_left_is_that_of_recent_steps_with_their_samples(status: Clocked) -> None:
    status.at(0, "loading", 0, 3)
    status.at(7, "training", 0, 10)
    assert status.at(17, "training", 1, 10)["left"] == pytest.approx(90)
    found = status.at(27, "training", 2, 10)
    assert (found["seconds_per_step"], found["left"]) == pytest.approx((10, 80))
    found = status.at(40, "samples", 3, 20)
    assert (found["step"], found["left"]) == (2, pytest.approx(80))  # still until the last step
    found = status.at(57, "training", 3, 10)
    assert (found["seconds_per_step"], found["left"]) == pytest.approx((50 / 3, 50 / 3 * 7))


def test_a_pause_is_no_part_of_a_step(status: Clocked) -> None:
    for step in range(3):
        status.at(10 * step, "training", step, 9)
    status.at(25, "paused", 2, 9)
    found = status.at(5000, "training", 2, 9)
    assert (found["seconds_per_step"], found["left"]) == pytest.approx((10, 70))
    assert status.at(5020, "training", 3, 9)["seconds_per_step"] == pytest.approx(20)


def test_old_steps_are_forgotten(status: Clocked) -> None:
    """Hundred steps of a second, then fifty of two: only the latter count."""
    for step in range(101):
        status.at(step, "training", step, 200)
    for step in range(101, 151):
        found = status.at(100 + 2 * (step - 100), "training", step, 200)
    assert found["seconds_per_step"] == pytest.approx(2)


def test_after_the_last_step_a_stage_has_its_own_time_left(status: Clocked) -> None:
    status.at(0, "training", 8, 9)
    status.at(10, "training", 9, 9)
    assert status.at(20, "evaluation of base", 0, 40)["left"] is None
    assert status.at(30, "evaluation of base", 4, 40)["left"] == pytest.approx(90)
    assert status.at(40, "evaluation of tuned", 0, 40)["left"] is None


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (None, "finished", ""),
        (RunStopped("stopped after step 3"), "stopped", "stopped after step 3"),
        (KeyboardInterrupt(), "stopped", "the run was interrupted"),
        (ValueError("no such judge"), "failed", "no such judge"),
        (ZeroDivisionError(), "failed", "ZeroDivisionError"),
    ],
)
def test_the_end_is_written(
    tmp_path: Path, error: BaseException | None, state: str, message: str
) -> None:
    events: list[ProgressEvent] = []
    try:
        with kept_status(tmp_path, lambda: True, events.append) as progress:
            progress(ProgressEvent("training", 3, 9))
            if error:
                raise error
    except BaseException as raised:
        assert raised is error
    found = read_status(tmp_path)
    assert found is not None
    assert (found["state"], found["message"], found["left"]) == (state, message, None)
    assert events == [ProgressEvent("training", 3, 9)]


def test_a_run_that_never_began_leaves_no_status(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="no such judge"),
        kept_status(tmp_path, lambda: False, lambda event: None) as progress,
    ):
        progress(ProgressEvent("loading"))
        assert (tmp_path / "status.json").is_file()
        raise ValueError("no such judge")
    assert list(tmp_path.iterdir()) == []


def test_a_status_that_cannot_be_written_is_reported_once_and_stops_nothing(tmp_path: Path) -> None:
    events: list[ProgressEvent] = []
    with kept_status(tmp_path, lambda: True, events.append) as progress, largest_file(10):
        for step in range(3):
            progress(ProgressEvent("training", step, 9))
    notes = [event.note for event in events if event.note]
    assert len(notes) == 1
    assert "File too large" in notes[0]
    assert "the run continues" in notes[0]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone_is_not_created_again(tmp_path: Path) -> None:
    root = tmp_path / "run"
    root.mkdir()
    with kept_status(root, lambda: True, lambda event: None):
        root.rmdir()
    assert not root.exists()


@pytest.mark.parametrize("text", ["", "[1]", '{"format": 9}', "{half"])
def test_a_status_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    assert read_status(tmp_path) is None
    (tmp_path / "status.json").write_text(text)
    assert read_status(tmp_path) is None


def test_a_process_is_known_by_its_number_and_its_start() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        status = {"pid": process.pid, "started": psutil.Process(process.pid).create_time()}
        assert is_alive(status)
        assert not is_alive({**status, "started": status["started"] - 60})  # its number was reused
        process.communicate(b"\n")
    assert not is_alive(status)
    assert not is_alive({"pid": "x"})


def test_an_unfinished_run_is_running_by_its_status_or_its_lock(tmp_path: Path) -> None:
    folder = tmp_path / "a run"
    assert not is_running(folder)
    with RunFolder(folder).locked():
        (folder / "recipe.yaml").touch()  # or the folder is removed again
        assert is_running(folder)
        assert "it is running; wait" in unfinished_text(folder)
    assert not is_running(folder)
    assert unfinished_text(folder).endswith(f"`reward-tuning resume '{folder}'`")
    StatusFile(folder).update(ProgressEvent("training", 1, 2))
    assert is_running(folder)
    StatusFile(folder).end("stopped")
    assert not is_running(folder)
