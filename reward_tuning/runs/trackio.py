"""The tracker for Trackio, through accelerate's tracker."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sqlite3
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reward_tuning.errors import TuningError
from reward_tuning.runs.tracker_parts import PROJECT, SampleClip, Table, TrackerStart

FOLDER, MODE = "TRACKIO_DIR", "TRACKIO_STORAGE_MODE"
REMOTE = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")


class Trackio:
    """Log a run to Trackio: a database in the run folder, unless Trackio's settings say another.

    Those are TRACKIO_DIR for a folder of several runs, TRACKIO_SPACE_ID and TRACKIO_SERVER_URL.

    A resumed run continues the same run of Trackio. In a database here, what a killed process
    logged after its checkpoint is deleted; elsewhere those steps stay and are not sent again.

    Args:
        start: See `TrackerStart`.

    Raises:
        TuningError: An earlier run of this process has set another folder, which Trackio keeps.
    """

    def __init__(self, start: TrackerStart) -> None:
        from accelerate.tracking import TrackioTracker

        self._trackio = _load(start.place / "trackio")
        storage = importlib.import_module("trackio.sqlite_storage").SQLiteStorage
        new = f"{start.folder.resolve().name}-{uuid.uuid4().hex[:6]}"
        self.kept = dict(start.kept) or {"name": new}
        self._max_step = lambda: storage.get_max_step_for_run(PROJECT, self.kept["name"])
        database = storage.get_project_db_path(PROJECT)
        mode = importlib.import_module("trackio.utils").get_storage_mode()
        self._here = not _remote() and mode == "sqlite"
        if self._here and start.kept and database.exists():
            _forget(database, self.kept["name"], start.steps)
        self._tracker = TrackioTracker(
            PROJECT,
            name=self.kept["name"],
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        with _quiet():
            self._tracker.start()
        self._run = self._tracker.tracker
        self._sent = self.last_step = self._last_step(start)

    def _last_step(self, start: TrackerStart) -> int:
        if not start.kept:
            return -1
        if not self._here:
            return start.logged
        found = self._max_step()
        return -1 if found is None else int(found)

    @property
    def where(self) -> str:
        """Command that shows the run."""
        if _remote():
            return f"project {PROJECT}, run {self.kept['name']}"
        folder = self._trackio.TRACKIO_DIR
        return f"{FOLDER}={folder} trackio show --project {PROJECT}"

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log the numbers of a step."""
        self._log(step, scalars)

    def video(self, step: int, clips: Sequence[SampleClip]) -> None:
        """Log copies of the files, with their prompts."""
        media = self._trackio.Video
        self._log(step, {clip.name: media(clip.path, caption=clip.prompt) for clip in clips})

    def table(self, step: int, name: str, table: Table) -> None:
        """Log a table."""
        rows = [list(row) for row in table.rows]
        self._log(step, {name: self._trackio.Table(columns=list(table.columns), data=rows)})

    def _log(self, step: int, values: Mapping[str, Any]) -> None:
        if self._here or step > self.last_step:
            self._tracker.log(dict(values), step=step)
            self._sent = max(self._sent, step)

    def recipe(self, path: Path, values: Mapping[str, Any]) -> None:
        """Set the run's config, which holds the file as a text, too."""
        self._run.config.update(values)
        self._run.config["recipe.yaml"] = path.read_text(encoding="utf-8")

    def flush(self) -> None:
        """Leave it to Trackio, which writes twice a second."""

    def close(self, *, finished: bool) -> None:
        """Write the rest and end Trackio's run.

        Raises:
            RuntimeError: Not all of it arrived, which Trackio itself only warns about.
        """
        del finished
        with _quiet():
            self._tracker.finish()
        # Otherwise Trackio finishes it once more, and says so, when the process ends.
        current = importlib.import_module("trackio.context_vars").current_run
        if current.get() is self._run:
            current.set(None)
        if self._here and (self._max_step() or -1) < self._sent:
            raise RuntimeError(f"the last step in its database is {self._max_step()}")


def _load(own: Path) -> Any:
    """Import Trackio, with the folder that the environment names or with the run's own.

    Trackio reads its folder once, when it is imported.
    """
    given, remote = os.environ.get(FOLDER), _remote()
    if not given and not remote and "trackio" not in sys.modules:
        own.mkdir(parents=True, exist_ok=True)
        # One process writes here, so a database is safe on a network file system, too, where
        # Trackio would write pieces of JSON from which no run can be continued.
        os.environ.setdefault(MODE, "sqlite")
        os.environ[FOLDER] = str(own.resolve())
        try:
            importlib.import_module("trackio")
        finally:
            del os.environ[FOLDER]
    trackio = importlib.import_module("trackio")
    wanted = Path(given).expanduser() if given else own
    if not remote and Path(trackio.TRACKIO_DIR).resolve() != wanted.resolve():
        raise TuningError(
            f"tracking: this process has used Trackio with {trackio.TRACKIO_DIR} and cannot change "
            f"that to {wanted}; set {FOLDER} to one folder for all runs before the first, or start "
            "each run in a process of its own"
        )
    return trackio


def _remote() -> bool:
    return any(map(os.environ.get, REMOTE))


def _forget(database: Path, name: str, steps: int) -> None:
    """Delete what a killed process logged after its checkpoint."""
    with contextlib.closing(sqlite3.connect(database, timeout=30)) as connection, connection:
        connection.execute("DELETE FROM metrics WHERE run_name = ? AND step > ?", (name, steps))


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep Trackio's greeting out of the standard output, which may be read by a program."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
