"""Trackers are begun with what they kept, told about, and give a clear error if they cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.runs import trackers
from reward_tuning.runs.patient_tracker import PatientTracker
from reward_tuning.runs.tracker_packages import PACKAGES
from reward_tuning.runs.tracker_parts import TrackerStart
from reward_tuning.runs.trackers import TRACKERS, open_trackers
from reward_tuning.schema.tracking import TrackerName
from tests.reward_tuning.runs.listening_tracker import Listener


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Listener]:
    found: list[Listener] = []

    def start(given: TrackerStart) -> Listener:
        found.append(Listener(given))
        return found[-1]

    monkeypatch.setattr(trackers, "TRACKERS", {"wandb": start, "mlflow": start})
    return found


def opened(folder: Path, *names: str) -> tuple[list[PatientTracker], list[str]]:
    lines: list[str] = []
    start = TrackerStart(folder, 4)
    return open_trackers(names, start, folder / "recipe.yaml", {"a": 1}, lines.append), lines


def test_every_name_of_a_recipe_has_its_tracker_and_its_packages() -> None:
    assert set(TRACKERS) == set(get_args(TrackerName)) == set(PACKAGES)


def test_each_tracker_gets_the_recipe_and_says_where_the_run_is(
    tmp_path: Path, made: list[Listener]
) -> None:
    found, lines = opened(tmp_path, "wandb", "mlflow")
    assert [one.name for one in found] == ["wandb", "mlflow"]
    assert [one.calls for one in made] == [[("recipe", "recipe.yaml", {"a": 1})]] * 2
    assert lines == ["tracking: wandb: over there", "tracking: mlflow: over there"]


def test_a_resumed_run_gets_what_each_tracker_kept(tmp_path: Path, made: list[Listener]) -> None:
    opened(tmp_path, "wandb")
    assert json.loads((tmp_path / "tracking/ids.json").read_text()) == {"wandb": {"id": "7"}}
    opened(tmp_path, "wandb", "mlflow")
    assert [one.start for one in made] == [
        TrackerStart(tmp_path, 4),
        TrackerStart(tmp_path, 4, kept={"id": "7"}),
        TrackerStart(tmp_path, 4),
    ]


def test_damaged_ids_are_refused(tmp_path: Path, made: list[Listener]) -> None:
    opened(tmp_path, "wandb")
    (tmp_path / "tracking/ids.json").write_text("{")
    with pytest.raises(TuningError, match=r"ids\.json is damaged .*delete it"):
        opened(tmp_path, "wandb")


def test_one_that_cannot_start_ends_the_run_and_closes_the_others(
    tmp_path: Path, made: list[Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "abcdef123")

    def refuse(start: TrackerStart) -> Listener:
        raise ConnectionError("no answer from https://me:pass@host/?token=x1 with abcdef123")

    monkeypatch.setitem(trackers.TRACKERS, "mlflow", refuse)  # type: ignore[misc]
    with pytest.raises(TuningError) as caught:
        opened(tmp_path, "wandb", "mlflow")
    text = str(caught.value)
    assert text.startswith(
        "tracking: mlflow cannot be started: no answer from https://***@host/?token=*** with ***."
    )
    assert "tracking=[...]" in text
    assert made[0].calls[-1] == ("close", False)
