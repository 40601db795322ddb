"""MLflow with a database on this machine: what it has is read back with its own client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reward_tuning.runs.mlflow import MLflow, flattened, metric_name
from reward_tuning.runs.tracker_parts import Table, TrackerStart
from tests.reward_tuning.runs.listening_tracker import sample

mlflow = pytest.importorskip("mlflow")
pytest.importorskip("sqlalchemy")


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


def client(folder: Path) -> Any:
    return mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/tracking/mlflow.db")


def curve(folder: Path, tracker: MLflow, name: str) -> list[tuple[int, float]]:
    points = client(folder).get_metric_history(tracker.kept["run"], name)
    return [(point.step, point.value) for point in points]


def test_a_run_as_mlflow_keeps_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("seed: 3\n")
    clip = sample(tmp_path)
    tracker = MLflow(TrackerStart(tmp_path))
    assert tracker.last_step == -1
    tracker.recipe(recipe, {"train": {"steps": 2}, "rewards": [{"text": "y" * 7000}], "seed": None})
    tracker.log(1, {"loss": 1.0, "reward/判": 0.25})
    tracker.log(1, {"guards/motion": 0.5})
    tracker.video(1, [clip])
    tracker.table(2, "evaluation", Table(("metric", "base"), [["hps", 0.5], ["a|b", None]]))
    tracker.close(finished=True)
    assert capfd.readouterr() == ("", "")

    run = client(tmp_path).get_run(tracker.kept["run"])
    assert run.data.metrics == {"loss": 1.0, "reward/u5224": 0.25, "guards/motion": 0.5}
    assert run.data.params.pop("rewards.0.text") == "y" * 5999 + "…"
    assert run.data.params == {"train.steps": "2", "seed": "null"}
    assert run.info.status == "FINISHED"
    assert run.info.run_name == tmp_path.name
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [
        {"path": "evaluation.json", "type": "table"}
    ]
    files = tmp_path / "tracking/mlflow" / tracker.kept["run"] / "artifacts"
    there = {str(path.relative_to(files)) for path in files.rglob("*") if path.is_file()}
    step = "samples/step-000001"
    assert there == {
        *("recipe.yaml", "evaluation.json", "evaluation.md"),
        *(f"{step}/00.mp4", f"{step}/prompts.json"),
    }
    assert (files / step / "00.mp4").read_bytes() == clip.path.read_bytes()
    assert json.loads((files / step / "prompts.json").read_text()) == {"samples/00": clip.prompt}
    assert json.loads((files / "evaluation.json").read_text()) == {
        "columns": ["metric", "base"],
        "data": [["hps", 0.5], ["a|b", None]],
    }
    assert r"| a\|b |  |" in (files / "evaluation.md").read_text()


def test_a_resumed_run_repeats_no_point_and_follows_its_folder(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("seed: 3\n")
    first = MLflow(TrackerStart(tmp_path / "a"))
    first.recipe(recipe, {"steps": 3})
    for step in (1, 2, 3):
        first.log(step, {"loss": float(step)})
    first.close(finished=False)
    assert client(tmp_path / "a").get_run(first.kept["run"]).info.status == "KILLED"
    (tmp_path / "a").rename(tmp_path / "b")
    mlflow.tracking._tracking_service.utils._artifact_repos_cache.clear()  # as in a new process
    second = MLflow(TrackerStart(tmp_path / "b", 2, 3, first.kept))
    assert second.last_step == 3
    assert client(tmp_path / "b").get_run(first.kept["run"]).info.status == "RUNNING"
    second.recipe(recipe, {"steps": 4, "more": 1})  # a parameter never changes
    for step in (3, 4):
        second.log(step, {"loss": float(step), "drift": 0.5})
    second.video(4, [sample(tmp_path)])
    second.close(finished=True)
    assert curve(tmp_path / "b", second, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    assert curve(tmp_path / "b", second, "drift") == [(3, 0.5), (4, 0.5)]
    assert not (tmp_path / "a").exists()
    assert len(list((tmp_path / "b").rglob("00.mp4"))) == 1
    found = client(tmp_path / "b").get_run(first.kept["run"])
    assert found.data.params == {"steps": "3", "more": "1"}
    assert found.info.artifact_uri.startswith((tmp_path / "b").as_uri())


def test_a_server_that_is_named_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/shared.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    monkeypatch.chdir(tmp_path)  # where MLflow puts the files of such a database
    tracker = MLflow(TrackerStart(tmp_path / "run"))
    tracker.close(finished=True)
    there = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/shared.db")
    run = there.get_run(tracker.kept["run"])
    assert there.get_experiment(run.info.experiment_id).name == "mine"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("reward/hps", "reward/hps"),
        ("step-07/adjoint_norm", "step-07/adjoint_norm"),
        ("reward/判", "reward/u5224"),
        ("a:b|c", "au003abu007cc"),
        ("reward/..", "reward/u.."),
        ("x" * 300, "x" * 250),
    ],
)
def test_names_that_mlflow_takes(name: str, clean: str) -> None:
    from mlflow.utils.validation import _validate_metric_name

    assert metric_name(name) == clean
    _validate_metric_name(clean)


def test_a_recipe_as_parameters() -> None:
    recipe = {"a": {"b": [1, 2], "c": {}}, "judges": [{"kind": "hps"}, {"kind": "clip"}], "t": "x"}
    assert dict(flattened(recipe)) == {
        "a.b": "[1, 2]",
        "a.c": "{}",
        "judges.0.kind": "hps",
        "judges.1.kind": "clip",
        "t": "x",
    }
