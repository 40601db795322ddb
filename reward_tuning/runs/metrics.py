"""The rows of metrics.jsonl, one a step, and everything that a run gives its trackers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reward_tuning.files.atomic_write import atomic_write, not_written
from reward_tuning.files.finite_json import without_infinities
from reward_tuning.files.json_text import parsed_json
from reward_tuning.runs.evaluation_table import evaluation_scalars, evaluation_table
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.patient_tracker import PatientTracker
from reward_tuning.runs.samples import sample_clips


class MetricsLog:
    """Write the rows of a run to metrics.jsonl, and give its numbers and clips to every tracker.

    A tracker that lacks earlier steps, because it is new to the run or was killed before it had
    written them, first receives their rows and clips from the run folder.

    Args:
        path: Path of metrics.jsonl. Rows after `steps` are dropped, since a resumed run writes them
            again.
        steps: Steps done so far.
        trackers: Trackers of the run, begun.

    Raises:
        TuningError: The folder cannot be written.
    """

    def __init__(self, path: Path, steps: int, trackers: Sequence[PatientTracker] = ()) -> None:
        self._path = path
        self._trackers = trackers
        kept: list[str] = []
        if path.exists():
            kept = [line for line in whole_rows(path) if parsed_json(line)["step"] <= steps]
            atomic_write(path, "".join(f"{line}\n" for line in kept).encode())
        for tracker in trackers:
            if tracker.last_step < steps:
                self._catch_up(tracker, steps, [parsed_json(line) for line in kept])

    def _catch_up(
        self, tracker: PatientTracker, steps: int, rows: Sequence[Mapping[str, Any]]
    ) -> None:
        scalars = {row["step"]: dict(_scalars(row)) for row in rows}
        with _refused(self._path.parent):
            for step in range(tracker.last_step + 1, steps + 1):
                if step in scalars:
                    tracker.log(step, scalars[step])
                # Those of step 0 are drawn again, and given then, if no step was kept.
                if steps and (clips := sample_clips(RunFolder(self._path.parent), step)):
                    tracker.video(step, clips)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row and track its numbers.

        Args:
            row: JSON values, possibly nested; numbers that are not finite become null.

        Raises:
            TuningError: The disk is full.
        """
        row = without_infinities(row)
        with _refused(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        self.track(row)

    def track(self, row: Mapping[str, Any]) -> None:
        """Give numbers to the trackers alone, such as those before the first step.

        Raises:
            TuningError: The disk is full.
        """
        scalars = dict(_scalars(without_infinities(row)))
        with _refused(self._path.parent):
            for tracker in self._trackers:
                tracker.log(row["step"], scalars)

    def samples(self, step: int, *, pairs: bool = False, of: int | None = None) -> None:
        """Give the sample clips of a step in the run folder to the trackers; there may be none.

        Args:
            step: Step under which the trackers show them.
            pairs: Add those of base and tuned model next to each other.
            of: Step whose clips they are, where a run exports an earlier checkpoint; None for
                `step`.

        Raises:
            TuningError: The disk is full.
        """
        folder = RunFolder(self._path.parent)
        clips = sample_clips(folder, step if of is None else of, pairs=pairs)
        with _refused(self._path.parent):
            for tracker in self._trackers if clips else ():
                tracker.video(step, clips)

    def evaluation(self, step: int, found: Mapping[str, Any]) -> None:
        """Give the final evaluation to the trackers, as numbers and as a table.

        Args:
            step: Last step.
            found: Content of evaluation.json or finetune.json.

        Raises:
            TuningError: The disk is full.
        """
        found = without_infinities(found)
        scalars, table = evaluation_scalars(found), evaluation_table(found)
        with _refused(self._path.parent):
            for tracker in self._trackers:
                if scalars:
                    tracker.log(step, scalars)
                if table is not None:
                    tracker.table(step, "evaluation", table)

    def flush(self) -> None:
        """Bring every row to the disk, before a checkpoint says that they are there.

        Raises:
            TuningError: The disk is full.
        """
        with _refused(self._path):
            if self._path.exists():
                with self._path.open("a", encoding="utf-8") as file:
                    os.fsync(file.fileno())
            for tracker in self._trackers:
                tracker.flush()

    def close(self, *, finished: bool = True) -> None:
        """Close the trackers.

        Args:
            finished: The run has ended; false where it was stopped or failed.

        Raises:
            TuningError: The disk is full.
        """
        with _refused(self._path.parent):
            for tracker in self._trackers:
                tracker.close(finished=finished)


def last_row(path: Path) -> int:
    """Return the highest step in a metrics.jsonl; -1 where there is none."""
    if not path.exists():
        return -1
    return max((parsed_json(line)["step"] for line in whole_rows(path)), default=-1)


@contextmanager
def _refused(place: Path) -> Iterator[None]:
    """Turn a failed write into an error that names the place and the remedy."""
    try:
        yield
    except OSError as error:
        raise not_written(place, error) from error


def _scalars(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in row.items():
        if name == "active_steps":
            for seen in value:
                for key in ("grad_norm", "adjoint_norm"):
                    if seen[key] is not None:
                        yield f"step-{seen['step']:02d}/{key}", seen[key]
        elif isinstance(value, Mapping):
            yield from (
                (f"{name}/{key}", inner) for key, inner in value.items() if inner is not None
            )
        elif name != "step" and isinstance(value, int | float):
            yield name, value


def whole_rows(path: Path) -> Iterator[str]:
    """Yield the rows of a metrics.jsonl as texts, without one that a kill left half written."""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            parsed_json(line)
        except ValueError:
            continue  # the last row, half written when the run was killed
        yield line
