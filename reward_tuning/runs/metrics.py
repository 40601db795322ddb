"""The rows of metrics.jsonl, one a step."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reward_tuning.files.atomic_write import atomic_write, not_written
from reward_tuning.runs.trackers import TRACKERS


class MetricsLog:
    """Write the rows of a run to metrics.jsonl, and their numbers to every tracker.

    Args:
        path: Path of metrics.jsonl. Rows after `steps` are dropped, since a resumed run writes them
            again.
        steps: Steps done so far.

    Raises:
        TuningError: The folder cannot be written.
    """

    def __init__(self, path: Path, steps: int) -> None:
        self._path = path
        if path.exists():
            kept = [line for line in _whole_rows(path) if json.loads(line)["step"] <= steps]
            atomic_write(path, "".join(f"{line}\n" for line in kept).encode())
        with _refused(path.parent):
            self._trackers = [tracker(path.parent, steps) for tracker in TRACKERS]

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row and track its numbers.

        Args:
            row: JSON values, possibly nested; numbers that are not finite become null.

        Raises:
            TuningError: The disk is full.
        """
        row = plain(row)
        with _refused(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        self.track(row)

    def track(self, row: Mapping[str, Any]) -> None:
        """Give numbers to the trackers alone, such as those before the first step.

        Raises:
            TuningError: The disk is full.
        """
        scalars = dict(_scalars(plain(row)))
        with _refused(self._path.parent):
            for tracker in self._trackers:
                tracker.log(row["step"], scalars)

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

    def close(self) -> None:
        """Close the trackers.

        Raises:
            TuningError: The disk is full.
        """
        with _refused(self._path.parent):
            for tracker in self._trackers:
                tracker.close()


@contextmanager
def _refused(place: Path) -> Iterator[None]:
    """Turn a failed write into an error that names the place and the remedy."""
    try:
        yield
    except OSError as error:
        raise not_written(place, error) from error


def plain(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not have, with null."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


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


def _whole_rows(path: Path) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            json.loads(line)
        except ValueError:
            continue  # the last row, half written when the run was killed
        yield line
