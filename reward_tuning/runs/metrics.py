"""metrics.jsonl and TensorBoard: one row a step; seconds and memory of its phases."""

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

import torch

from reward_tuning.files.atomic_write import atomic_write, not_written


class MetricsLog:
    """Rows of a run, appended to metrics.jsonl and to TensorBoard.

    Args:
        path: metrics.jsonl; rows after `step` are dropped, so that a resumed run has none twice.
        step: Steps done so far.
    """

    def __init__(self, path: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path = path
        if path.exists():
            kept = [line for line in _whole_rows(path) if json.loads(line)["step"] <= step]
            atomic_write(path, "".join(f"{line}\n" for line in kept).encode())
        try:
            self._board = SummaryWriter(str(path.parent), purge_step=step + 1 if step else None)
        except OSError as error:
            raise not_written(path.parent, error) from error

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row.

        Args:
            row: JSON values, nested where wanted; numbers that are not finite become null.

        Raises:
            TuningError: The disk is full.
        """
        row = plain(row)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        except OSError as error:
            raise not_written(self._path, error) from error
        self.show(row)

    def show(self, row: Mapping[str, Any]) -> None:
        """Give numbers to TensorBoard alone: those of before the first step and after the last.

        Raises:
            TuningError: The disk is full.
        """
        try:
            for name, value in _scalars(plain(row)):
                self._board.add_scalar(name, value, row["step"])
        except OSError as error:
            raise not_written(self._path.parent, error) from error

    def flush(self) -> None:
        """Bring every row to the disk, before a checkpoint says that they are there.

        Raises:
            TuningError: The disk is full.
        """
        try:
            if self._path.exists():
                with self._path.open("a", encoding="utf-8") as file:
                    os.fsync(file.fileno())
            self._board.flush()
        except OSError as error:
            raise not_written(self._path, error) from error

    def close(self) -> None:
        """Close TensorBoard's file.

        Raises:
            TuningError: The disk is full.
        """
        try:
            self._board.close()
        except OSError as error:
            raise not_written(self._path.parent, error) from error


class PhaseClock:
    """Seconds and peak memory of each phase of a step.

    Memory is the allocator's peak on a CUDA device and the process's resident size at the end of
    the phase elsewhere.

    Args:
        device: Where the work happens.
        on_phase: Called with a phase's name as it begins.
    """

    def __init__(
        self, device: torch.device, on_phase: Callable[[str], None] = lambda name: None
    ) -> None:
        import psutil

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
    """JSON has no NaN and no infinity: null instead."""
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
            continue  # the row that was being written when the run was killed
        yield line
