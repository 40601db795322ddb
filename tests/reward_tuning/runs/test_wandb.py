"""wandb in its offline mode: what it wrote is read back from its own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from accelerate import PartialState

from reward_tuning.runs.tracker_parts import Table, TrackerStart
from reward_tuning.runs.wandb import WandB
from reward_tuning.runs.wandb_log import records
from tests.reward_tuning.runs.listening_tracker import sample

wandb = pytest.importorskip("wandb")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    PartialState()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    wandb.teardown()


def written(folder: Path) -> list[Any]:
    paths = sorted(folder.glob("tracking/wandb/offline-run-*/run-*.wandb"))
    return [record for path in paths for record in records(path)]


def rows(folder: Path) -> list[tuple[int, dict[str, Any]]]:
    found = []
    for record in written(folder):
        if record.WhichOneof("record_type") == "history":
            items = {
                item.key or "/".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            }
            values = {name: value for name, value in items.items() if not name.startswith("_")}
            found.append((record.history.step.num, values))
    return found


def test_a_run_as_wandb_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789" * 4)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("seed: 3\n")
    clip = sample(tmp_path)
    tracker = WandB(TrackerStart(tmp_path))
    assert tracker.last_step == -1
    tracker.recipe(recipe, {"train": {"steps": 2}, "rewards": [{"kind": "hps"}]})
    tracker.log(0, {"held_out/loss": 2.0})
    tracker.log(1, {"loss": 1.0, "reward/hps": 0.25})
    tracker.video(1, [clip])
    tracker.log(1, {"guards/motion": 0.5})  # the same step, again
    tracker.log(2, {"loss": 0.5})
    tracker.table(2, "evaluation", Table(("metric", "base"), [["hps", 0.5], ["a|b", None]]))
    tracker.close(finished=True)

    (_, first), (step, second), (_, third) = rows(tmp_path)
    assert first == {"held_out/loss": 2.0}
    assert step == 1
    video = {name: second.pop(name) for name in list(second) if name.startswith("samples/00")}
    assert second == {"loss": 1.0, "reward/hps": 0.25, "guards/motion": 0.5}
    assert video["samples/00/caption"] == clip.prompt
    (files,) = tmp_path.glob("tracking/wandb/offline-run-*/files")
    assert (files / video["samples/00/path"]).read_bytes() == clip.path.read_bytes()
    assert (files / "recipe.yaml").read_text() == "seed: 3\n"
    assert third["loss"] == 0.5
    table = json.loads((files / third["evaluation/path"]).read_text())
    assert table == {"columns": ["metric", "base"], "data": [["hps", 0.5], ["a|b", None]]}

    (run,) = [r.run for r in written(tmp_path) if r.WhichOneof("record_type") == "run"]
    assert (run.run_id, run.project) == (tracker.kept["id"], "reward-tuning")
    assert run.display_name == tmp_path.name
    config = {
        item.key: json.loads(item.value_json)
        for r in written(tmp_path)
        if r.WhichOneof("record_type") == "config"
        for item in r.config.update
    }
    assert config["train"] == {"steps": 2}
    assert config["rewards"] == [{"kind": "hps"}]
    ends = [r.exit.exit_code for r in written(tmp_path) if r.WhichOneof("record_type") == "exit"]
    assert ends == [0]
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in everything if b"0123456789" * 4 in path.read_bytes()]


def test_a_resumed_run_repeats_no_step(tmp_path: Path) -> None:
    first = WandB(TrackerStart(tmp_path))
    for step in (1, 2, 3):
        first.log(step, {"loss": float(step)})
    first.close(finished=False)
    second = WandB(TrackerStart(tmp_path, 2, 3, first.kept))
    assert second.last_step == 3
    for step in (3, 4):
        second.log(step, {"loss": float(step)})
    second.close(finished=True)
    assert rows(tmp_path) == [(step, {"loss": float(step)}) for step in (1, 2, 3, 4)]
    runs = {r.run.run_id for r in written(tmp_path) if r.WhichOneof("record_type") == "run"}
    assert runs == {first.kept["id"]}
