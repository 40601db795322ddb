"""Trackio in a folder on this machine: what it wrote is read back with its own functions."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from accelerate import PartialState

from reward_tuning.errors import TuningError
from reward_tuning.runs import trackio as module
from reward_tuning.runs.tracker_parts import Table, TrackerStart
from reward_tuning.runs.trackio import Trackio
from tests.reward_tuning.runs.listening_tracker import sample

if find_spec("trackio") is None:  # without importing it: it reads its folder then
    pytest.skip("needs the extra `trackers`", allow_module_level=True)

PROJECT = "reward-tuning"


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Trackio keeps one folder for the whole process."""
    PartialState()
    place = tmp_path_factory.mktemp("trackio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(place))
        for name in module.REMOTE:
            patch.delenv(name, raising=False)
        yield place


def storage() -> Any:
    from trackio.sqlite_storage import SQLiteStorage

    return SQLiteStorage


def rows(tracker: Trackio) -> list[tuple[int, dict[str, Any]]]:
    logs = storage().get_logs(PROJECT, tracker.kept["name"])
    found = [(row.pop("step"), row) for row in logs]
    for _, row in found:
        del row["timestamp"]
    return found


def test_a_run_as_trackio_keeps_it(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("seed: 3\n")
    clip = sample(tmp_path)
    tracker = Trackio(TrackerStart(tmp_path))
    assert tracker.last_step == -1
    assert tracker.where == f"TRACKIO_DIR={folder} trackio show --project {PROJECT}"
    tracker.recipe(recipe, {"train": {"steps": 2}})
    tracker.log(1, {"loss": 1.0, "reward/hps": 0.25})
    tracker.video(1, [clip])
    tracker.table(2, "evaluation", Table(("metric", "base"), [["hps", 0.5], ["a|b", None]]))
    tracker.close(finished=True)
    assert capsys.readouterr().out == ""
    (_, numbers), (at, clips), (_, table) = rows(tracker)
    assert numbers == {"loss": 1.0, "reward/hps": 0.25}
    assert (at, clips["samples/00"]["caption"]) == (1, clip.prompt)
    kept = folder / "media" / clips["samples/00"]["file_path"]
    assert kept.read_bytes() == clip.path.read_bytes()
    assert table["evaluation"]["_value"] == [
        {"metric": "hps", "base": 0.5},
        {"metric": "a|b", "base": None},
    ]
    config = storage().get_run_config(PROJECT, tracker.kept["name"])
    assert config["train"] == {"steps": 2}
    assert config["recipe.yaml"] == "seed: 3\n"


def test_a_resumed_run_replaces_what_a_killed_one_logged(tmp_path: Path) -> None:
    first = Trackio(TrackerStart(tmp_path))
    for step in (1, 2, 3):
        first.log(step, {"loss": float(step)})
    first.close(finished=False)
    other = Trackio(TrackerStart(tmp_path))  # another run of the same folder name
    other.log(3, {"loss": -1.0})
    other.close(finished=True)
    second = Trackio(TrackerStart(tmp_path, 2, 3, first.kept))
    assert second.last_step == 2
    for step in (3, 4):
        second.log(step, {"loss": 10.0 * step})
    second.close(finished=True)
    assert rows(second) == [
        (1, {"loss": 1.0}),
        (2, {"loss": 2.0}),
        (3, {"loss": 30.0}),
        (4, {"loss": 40.0}),
    ]
    assert rows(other) == [(3, {"loss": -1.0})]


def test_what_trackio_lost_in_silence_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = Trackio(TrackerStart(tmp_path))
    tracker.log(1, {"loss": 1.0})
    monkeypatch.setattr(tracker, "_max_step", lambda: None)
    with pytest.raises(RuntimeError, match="the last step in its database is None"):
        tracker.close(finished=True)


def test_another_folder_is_refused_once_trackio_has_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRACKIO_DIR")
    with pytest.raises(TuningError, match="start each run in a process of its own"):
        Trackio(TrackerStart(tmp_path))


def test_the_database_is_in_the_run_folder_unless_told_otherwise(tmp_path: Path) -> None:
    code = """
import sys
from importlib.util import find_spec
from pathlib import Path
from accelerate import PartialState
from reward_tuning.runs.trackio import Trackio
from reward_tuning.runs.tracker_parts import TrackerStart
PartialState()
for folder in (Path(sys.argv[1]), Path(sys.argv[1])):
    tracker = Trackio(TrackerStart(folder))
    tracker.log(1, {"loss": 1.0})
    tracker.close(finished=True)
"""
    named = {"TRACKIO_DIR", "TRACKIO_STORAGE_MODE", "HF_HOME", *module.REMOTE}
    environment = {name: value for name, value in os.environ.items() if name not in named}
    environment |= {"HF_HOME": str(tmp_path / "hf"), "HOME": str(tmp_path / "home")}
    words = [sys.executable, "-c", code, tmp_path / "run"]
    done = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == ""
    assert (tmp_path / "run/tracking/trackio/reward-tuning.db").is_file()
    assert not list(tmp_path.glob("h*/**/*.db"))
