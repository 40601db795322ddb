"""Trackers for tests: one that writes down its calls, and those of a run's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from reward_tuning.files.clips import write_clip
from reward_tuning.runs.patient_tracker import PatientTracker
from reward_tuning.runs.tensorboard import TensorBoard
from reward_tuning.runs.tracker_parts import SampleClip, Table, TrackerStart


class Listener:
    """Write down every call; fail while `error` is set."""

    kept: Mapping[str, str] = {"id": "7"}
    where = "over there"

    def __init__(self, start: TrackerStart | None = None, last_step: int = -1) -> None:
        self.start = start
        self.last_step = last_step
        self.calls: list[tuple[object, ...]] = []
        self.error: Exception | None = None

    def _write(self, *call: object) -> None:
        if self.error is not None:
            raise self.error
        self.calls.append(call)

    def log(self, step: int, scalars: Mapping[str, float]) -> None:
        self._write(step, dict(scalars))

    def video(self, step: int, clips: Sequence[SampleClip]) -> None:
        self._write(step, [(clip.name, clip.path.name, clip.prompt) for clip in clips])

    def table(self, step: int, name: str, table: Table) -> None:
        self._write(step, name, table)

    def recipe(self, path: Path, values: Mapping[str, Any]) -> None:
        self._write("recipe", path.name, values)

    def flush(self) -> None:
        self._write("flush")

    def close(self, *, finished: bool) -> None:
        self._write("close", finished)


def patient(listener: Listener) -> tuple[PatientTracker, list[str]]:
    """Wrap a listener; also return the lines that a person sees."""
    lines: list[str] = []
    return PatientTracker("listener", listener, lines.append), lines


def tensorboard(folder: Path, steps: int = 0) -> PatientTracker:
    """The tracker for TensorBoard in a folder."""
    return PatientTracker(
        "tensorboard", TensorBoard(TrackerStart(folder, steps)), lambda line: None
    )


def sample(folder: Path, seed: int = 0) -> SampleClip:
    """A clip of 5 frames of 32 x 48 pixels with a prompt that is no markup."""
    path = folder / f"{seed:02d}.mp4"
    frames = torch.rand(5, 3, 32, 48, generator=torch.Generator().manual_seed(seed))
    write_clip(frames, path, fps=8)
    return SampleClip(f"samples/{seed:02d}", path, '一只<b>cat</b> & "dog"')
