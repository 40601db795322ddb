"""The tracker for Weights & Biases, through accelerate's tracker."""

from __future__ import annotations

import importlib
import os
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reward_tuning.errors import TuningError
from reward_tuning.runs.tracker_parts import PROJECT, SampleClip, Table, TrackerStart
from reward_tuning.runs.wandb_log import last_logged_step

ONLINE = ("online", "run", "shared")
FINISH_SECONDS, OFFLINE_SECONDS = 600, 30
"""Longest wait at the end for uploads, and offline for the last write to the disk."""


def require_wandb() -> None:
    """Check that wandb could send a run, without asking its server.

    Raises:
        TuningError: No API key is configured.
    """
    wandb = importlib.import_module("wandb")
    if wandb.setup().settings.mode in ONLINE and not wandb.login(prompt=False):
        raise TuningError(
            "tracking: wandb has no API key; run `wandb login`, or set WANDB_API_KEY, or set "
            "WANDB_MODE=offline to keep the data in the run folder and send it later with "
            "`wandb sync`"
        )


class WandB:
    """Send a run to Weights & Biases, or keep it in the run folder for `wandb sync`.

    wandb's own settings apply: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE and the others. Neither
    the terminal's output nor source code nor the working tree's differences are sent.

    A resumed run continues the same run of wandb, which never replaces a step: steps that a killed
    process had sent stay as they were, and are not sent again.

    Args:
        start: See `TrackerStart`.
    """

    def __init__(self, start: TrackerStart) -> None:
        from accelerate.tracking import WandBTracker

        self._wandb = importlib.import_module("wandb")
        self.kept = dict(start.kept) or {"id": uuid.uuid4().hex[:8]}
        self._place = start.place
        self._place.mkdir(parents=True, exist_ok=True)
        before = last_logged_step(self._place)
        self._tracker = WandBTracker(
            os.environ.get("WANDB_PROJECT") or PROJECT,
            id=self.kept["id"],
            name=os.environ.get("WANDB_NAME") or start.folder.resolve().name,
            dir=str(start.place),
            resume="allow",
            reinit="create_new",  # never a run that this process has open already
            settings=self._wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,
                disable_code=True,
                save_code=False,
                finish_timeout=FINISH_SECONDS,
                finish_timeout_raises=True,
            ),
        )
        self._tracker.start()
        self._run = self._tracker.tracker
        self.last_step = before if self._run.offline else self._run.starting_step - 1
        self._sent = self.last_step

    @property
    def where(self) -> str:
        """Address of the run, or the command that sends it."""
        if self._run.offline:
            return f"offline; send it with `wandb sync {Path(self._run.dir).parent}`"
        return str(self._run.url)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        """Log the numbers of a step; wandb takes them together until the next step."""
        self._log(step, scalars)

    def video(self, step: int, clips: Sequence[SampleClip]) -> None:
        """Log the files as they are, with their prompts."""
        media = self._wandb.Video
        videos = [media(str(clip.path), caption=clip.prompt, format="mp4") for clip in clips]
        names = [clip.name for clip in clips]
        self._log(step, dict(zip(names, videos, strict=True)))

    def table(self, step: int, name: str, table: Table) -> None:
        """Log a table."""
        rows = [list(row) for row in table.rows]
        self._log(step, {name: self._wandb.Table(columns=list(table.columns), data=rows)})

    def _log(self, step: int, values: Mapping[str, Any]) -> None:
        if step > self.last_step:
            self._tracker.log(dict(values), step=step)
            self._sent = max(self._sent, step)

    def recipe(self, path: Path, values: Mapping[str, Any]) -> None:
        """Set the run's config, and add the file."""
        self._run.config.update(dict(values), allow_val_change=True)
        folder = Path(self._run.dir)
        shutil.copyfile(path, folder / path.name)  # a link would break when the run is moved
        self._run.save(str(folder / path.name), base_path=str(folder), policy="now")

    def flush(self) -> None:
        """Leave it to wandb, which sends all the time."""

    def close(self, *, finished: bool) -> None:
        """Send the rest and end wandb's run.

        Raises:
            TimeoutError: Not all of it arrived in time; it stays in the run folder.
        """
        self._run.finish(exit_code=0 if finished else 1)
        # Offline, wandb's own process still writes when `finish` returns.
        end = time.monotonic() + OFFLINE_SECONDS
        while self._run.offline and last_logged_step(self._place) < self._sent:
            if time.monotonic() > end:
                raise TimeoutError(f"step {self._sent} is not in its file")
            time.sleep(0.05)
