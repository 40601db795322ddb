"""The tracker for MLflow, through its client.

Not through accelerate's tracker, which works on the process's one active run and on global
settings, prefers MLFLOW_RUN_ID to the run that is continued, and drops long values.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from reward_tuning.runs.tracker_parts import PROJECT, SampleClip, Table, TrackerStart

URI, EXPERIMENT = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"
KEY_LIMIT, VALUE_LIMIT, BATCH = 250, 6000, 100
"""Characters of a name and of a parameter's value, and parameters in one request: MLflow's own."""
TABLE_TAG = "mlflow.loggedArtifacts"
"""Lists the artifacts that MLflow's pages show as tables; `mlflow.log_table` needs pandas."""


class MLflow:
    """Log a run to MLflow: a database in the run folder, or the server of MLFLOW_TRACKING_URI.

    A resumed run continues the same run of MLflow. MLflow never replaces a point, so points that a
    killed process had logged stay as they were, and are not logged again.

    Args:
        start: See `TrackerStart`.
    """

    def __init__(self, start: TrackerStart) -> None:
        mlflow = importlib.import_module("mlflow")
        self._entities = importlib.import_module("mlflow.entities")
        database = start.place / "mlflow.db"
        files = start.place / "mlflow"
        self._here = not os.environ.get(URI)
        uri = os.environ.get(URI) or f"sqlite:///{database.resolve()}"
        if self._here:
            start.place.mkdir(parents=True, exist_ok=True)
            _moved(database, files)
        with _quiet():
            self._client = mlflow.MlflowClient(tracking_uri=uri)
            self._run = str(start.kept.get("run") or self._create(start, files))
            run = self._client.get_run(self._run)
        self.kept = {"run": self._run}
        self._parameters = dict(run.data.params)
        self._known = {
            name: max(point.step for point in self._client.get_metric_history(self._run, name))
            for name in run.data.metrics
        }
        self.last_step = max(self._known.values(), default=-1)
        if start.kept:
            self._client.set_terminated(self._run, "RUNNING")

    def _create(self, start: TrackerStart, files: Path) -> str:
        name = os.environ.get(EXPERIMENT) or PROJECT
        found = self._client.get_experiment_by_name(name)
        if found is None:
            place = files.resolve().as_uri() if self._here else None
            experiment = self._client.create_experiment(name, artifact_location=place)
        else:
            experiment = found.experiment_id
        run = self._client.create_run(experiment, run_name=start.folder.resolve().name)
        return str(run.info.run_id)

    @property
    def where(self) -> str:
        """Command that shows the run, or its name on the server."""
        if self._here:
            uri = self._client.tracking_uri
            return f"mlflow ui --backend-store-uri {uri}"
        return f"run {self._run} on the server of {URI}"

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log the numbers of a step that are not there yet, in one request."""
        now = int(time.time() * 1000)
        points = [
            self._entities.Metric(name, float(value), now, step)
            for name, value in ((metric_name(key), value) for key, value in scalars.items())
            if step > self._known.get(name, -1)
        ]
        if points:
            self._client.log_batch(self._run, metrics=points)

    def video(self, step: int, clips: Sequence[SampleClip]) -> None:
        """Log the files below `samples/step-NNNNNN`, with their prompts."""
        place = f"samples/step-{step:06d}"
        for clip in clips:
            below = clip.name.rpartition("/")[0].removeprefix("samples")
            self._client.log_artifact(self._run, str(clip.path), f"{place}/{below}".rstrip("/"))
        prompts = {clip.name: clip.prompt for clip in clips}
        self._client.log_dict(self._run, prompts, f"{place}/prompts.json")

    def table(self, step: int, name: str, table: Table) -> None:
        """Log a table as MLflow's pages show it, and as a text."""
        del step
        file = f"{name}.json"
        content = {"columns": list(table.columns), "data": [list(row) for row in table.rows]}
        self._client.log_dict(self._run, content, file)
        self._client.log_text(self._run, table.markdown(), f"{name}.md")
        shown = json.dumps([{"path": file, "type": "table"}])
        self._client.set_tag(self._run, TABLE_TAG, shown)

    def recipe(self, path: Path, values: Mapping[str, Any]) -> None:
        """Log the file and, as parameters, its values; MLflow never changes a parameter.

        Values of more than 6,000 characters are cut.
        """
        self._client.log_artifact(self._run, str(path))
        flat = dict(flattened(values))
        new = iter(
            [
                self._entities.Param(name, value)
                for name, value in flat.items()
                if name not in self._parameters
            ]
        )
        while some := list(islice(new, BATCH)):
            self._client.log_batch(self._run, params=some)

    def flush(self) -> None:
        """Nothing waits: every call above ends when its data is there."""

    def close(self, *, finished: bool) -> None:
        """End MLflow's run."""
        self._client.set_terminated(self._run, "FINISHED" if finished else "KILLED")


def metric_name(name: str) -> str:
    """Return a name that MLflow takes: letters, digits, `_-. :/`, at most 250 characters.

    Any other character, such as those of a judge that a person named in Chinese, becomes its code
    point, so that different names stay different.
    """
    clean = re.sub(r"[^A-Za-z0-9_\-. /]", lambda found: f"u{ord(found[0]):04x}", name)
    parts = [part if part.strip(".") else f"u{'.' * len(part)}" for part in clean.split("/")]
    return "/".join(parts)[:KEY_LIMIT]


def flattened(values: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the values of a recipe as names and texts for MLflow: `rewards.0.weight`, `2.0`."""
    inner: Iterator[tuple[Any, Any]]
    if isinstance(values, Mapping) and values:
        inner = iter(values.items())
    elif isinstance(values, list | tuple) and any(isinstance(one, Mapping) for one in values):
        inner = iter(enumerate(values))
    else:
        text = values if isinstance(values, str) else json.dumps(values, ensure_ascii=False)
        cut = text if len(text) <= VALUE_LIMIT else f"{text[: VALUE_LIMIT - 1]}…"
        yield metric_name(path), cut
        return
    for key, value in inner:
        yield from flattened(value, f"{path}.{key}" if path else str(key))


def _moved(database: Path, files: Path) -> None:
    """Correct the absolute paths in a database whose run folder was moved.

    Otherwise MLflow would make the old folder again for new files.
    """
    if not database.exists():
        return
    place = files.resolve().as_uri()
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        old = connection.execute(
            "SELECT artifact_location FROM experiments WHERE artifact_location LIKE '%/mlflow'"
        ).fetchall()
        for (was,) in old:
            if was != place:
                change = "UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?"
                connection.execute(change, (place, was))
                connection.execute(
                    "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                    "WHERE substr(artifact_uri, 1, ?) = ?",
                    (place, len(was) + 1, len(was) + 1, f"{was}/"),
                )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the making of the database's tables out of the terminal."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
