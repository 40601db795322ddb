"""The rows of metrics.jsonl, one a step, and the clock that times the phases of a step."""

from __future__ import annotations

import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch

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


class PhaseClock:
    """Measure seconds and peak memory of each phase of a step.

    Memory is the allocator's peak on a CUDA device; elsewhere, the process's resident size at the
    end of the phase.

    Args:
        device: Device that computes the phase.
        on_phase: Called with a phase's name as it begins.

    Attributes:
        seconds: Time of each phase.
        memory: Bytes of each phase.
    """

    def __init__(
        self, device: torch.device, on_phase: Callable[[str], None] = lambda name: None
    ) -> None:
        self._device = device
        self._on_phase = on_phase
        self._process = psutil.Process()
        self.seconds: dict[str, float] = defaultdict(float)
        self.memory: dict[str, int] = defaultdict(int)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Time a phase; a phase entered again adds to its seconds."""
        self._on_phase(name)
        cuda = self._device.type == "cuda"
        if cuda:
            torch.cuda.reset_peak_memory_stats(self._device)
        began = time.perf_counter()
        yield
        if cuda:
            torch.cuda.synchronize(self._device)
            used = torch.cuda.max_memory_allocated(self._device)
        else:
            used = self._process.memory_info().rss
        self.seconds[name] += time.perf_counter() - began
        self.memory[name] = max(self.memory[name], used)


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
