"""A run as the page shows it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.watch import watched_run
from reward_tuning.watch.watched_run import WatchedRun
from tests.reward_tuning.watch.run_files import append, metrics_row, write_run, write_status


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


@pytest.fixture
def run(root: Path) -> WatchedRun:
    return WatchedRun(root, "abc", "study/run")


def test_a_view_holds_what_the_page_shows(root: Path, run: WatchedRun) -> None:
    view = run.view()
    assert json.loads(json.dumps(view)) is not None
    assert (view["id"], view["name"], view["state"], view["obeys"]) == (
        "abc",
        "study/run",
        "running",
        True,
    )
    assert (view["status"]["phase"], view["status"]["left"]) == ("sweep", 70.0)
    assert not {"pid", "started"} & set(view["status"])
    assert view["metrics"] == {
        "generation": 1,
        "first": 0,
        "rows": [
            {
                "step": n,
                "loss": -0.5,
                "reward/hps": 0.5,
                "seconds/rollout": 1.0,
                "seconds/step": 3.0,
            }
            for n in (1, 2)
        ],
        "more": False,
    }
    assert view["guards"]["rows"] == []
    assert view["samples"] == {0: ["00.mp4"]}
    assert view["prompts"] == {"00.mp4": "a red ball"}
    assert view["orders"] == {"stop": False, "sample": False, "pause": False}
    assert view["resume"] == (f"torchrun --nproc_per_node 2 -m reward_tuning.cli resume {root}")


def test_only_new_rows_are_sent(
    root: Path, run: WatchedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run.view()["metrics"]
    have = (first["generation"], 2)
    assert run.view(have)["metrics"]["rows"] == []
    append(root / "metrics.jsonl", metrics_row(3))
    answer = run.view(have)["metrics"]
    assert (answer["first"], [row["step"] for row in answer["rows"]]) == (2, [3])
    (root / "metrics.jsonl").write_text(json.dumps(metrics_row(7)) + "\n")
    answer = run.view(have)["metrics"]
    assert (answer["first"], [row["step"] for row in answer["rows"]]) == (0, [7])
    assert answer["generation"] != first["generation"]
    assert run.view((answer["generation"], 900))["metrics"]["first"] == 0  # a page that is wrong
    monkeypatch.setattr(watched_run, "MOST_ROWS", 2)
    for step in (8, 9):
        append(root / "metrics.jsonl", metrics_row(step))
    answers = [run.view((answer["generation"], count))["metrics"] for count in (0, 2)]
    assert [(len(one["rows"]), one["more"]) for one in answers] == [(2, True), (1, False)]


def test_guards_come_with_what_fired(root: Path, run: WatchedRun) -> None:
    row = {
        "step": 20,
        "reward": {"before": 0.1, "now": 0.2},
        "measures": {"clip": {"mean": -0.1, "low": -0.2, "high": 0.0}},
        "motion": 0.7,
        "fired": [{"rule": "motion", "action": "stop", "text": "<b>\udcff"}, "odd"],
        "best": 10,
    }
    append(root / "guards.jsonl", json.dumps(row) + "\n")
    (found,) = run.view()["guards"]["rows"]
    assert found["numbers"]["measures/clip/low"] == -0.2
    assert found["numbers"]["motion"] == 0.7
    assert found["fired"] == [{"rule": "motion", "action": "stop", "text": "<b>\\udcff"}]
    assert found["best"] == 10


@pytest.mark.parametrize(
    ("changes", "state", "obeys"),
    [
        ({}, "running", True),
        ({"state": "paused"}, "paused", True),
        ({"state": "stopped"}, "stopped", False),
        ({"state": "failed"}, "failed", False),
        ({"pid": 2**22 + 1}, "running", True),  # elsewhere, and heard of just now
        ({"pid": 2**22 + 1, "time": time.time() - 60}, "silent", True),
        ({"pid": 2**22 + 1, "time": "odd"}, "silent", True),
        ({"time": time.time() - 3600}, "running", True),  # a long phase of a living process
        ({"format": 99}, "unknown", False),
    ],
)
def test_states(
    root: Path, run: WatchedRun, changes: dict[str, Any], state: str, obeys: bool
) -> None:
    write_status(root, **changes)
    view = run.view()
    assert (view["state"], view["obeys"]) == (state, obeys)


def test_a_run_of_an_older_version_is_finished_or_not_known(root: Path, run: WatchedRun) -> None:
    (root / "status.json").unlink()
    assert run.view()["state"] == "unknown"
    (root / "evaluation.json").touch()
    assert run.view()["state"] == "finished"


def test_orders_are_files_that_are_given_and_taken_back(root: Path, run: WatchedRun) -> None:
    for given in (True, True, False, False):
        run.order("pause", given=given)
        assert (root / "control/pause").exists() is given
        assert run.view()["orders"]["pause"] is given


def test_orders_to_nobody_are_refused(root: Path, run: WatchedRun) -> None:
    write_status(root, state="stopped")
    with pytest.raises(TuningError, match=r"does not run, .* resume with: torchrun"):
        run.order("stop", given=True)
    assert not (root / "control").exists()
    with pytest.raises(TuningError, match=r"no order '../recipe.yaml'; there are stop, sample"):
        run.order("../recipe.yaml", given=False)
    assert (root / "recipe.yaml").exists()


def test_an_order_that_cannot_be_written_says_why(root: Path, run: WatchedRun) -> None:
    (root / "control").touch()
    with pytest.raises(TuningError, match="control/stop cannot be written: File exists; check"):
        run.order("stop", given=True)


def test_a_file_that_cannot_be_read_is_reported_and_the_rest_is_shown(
    root: Path, run: WatchedRun
) -> None:
    (root / "guards.jsonl").mkdir()
    view = run.view()
    assert len(view["metrics"]["rows"]) == 2
    assert view["faults"] == [f"{root / 'guards.jsonl'} cannot be read: Is a directory"]


def test_the_recipe_is_a_text_of_the_run_alone(root: Path, run: WatchedRun) -> None:
    assert run.recipe().endswith("seed: 3\n")
    (root / "recipe.yaml").unlink()
    assert run.recipe() == ""
    secret = root.parent / "secret"
    secret.write_text("secret")
    (root / "recipe.yaml").symlink_to(secret)
    with pytest.raises(TuningError, match="leads out of its run folder"):
        run.recipe()
