"""metrics.jsonl and TensorBoard: one row a step; what a row says, and when it is a warning."""

from __future__ import annotations

import json
import math
import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from reward_tuning.plan import Plan
from reward_tuning.reward_step import BatchReport
from reward_tuning.whole_file import not_written, write_whole

VANISHING = 1e-3  # norm before clipping; the published script's own note on its stalled runs
VANISHING_STEPS = 5
CLIPPING_SHARE, CLIPPING_STEPS = 0.95, 20


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
            write_whole(path, "".join(f"{line}\n" for line in kept).encode())
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
            for name, value in _scalars(row):
                self._board.add_scalar(name, value, row["step"])
        except OSError as error:
            raise not_written(self._path, error) from error

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


class GradientWatch:
    """Says, once each, that the gradient vanishes or that every step is clipped.

    Args:
        max_grad_norm: Of the clipping; None for none.
    """

    def __init__(self, max_grad_norm: float | None) -> None:
        self._limit = max_grad_norm
        self._small = 0
        self._clipped: deque[bool] = deque(maxlen=CLIPPING_STEPS)
        self._told: set[str] = set()

    def see(self, grad_norm: float) -> str | None:
        """Take in a step's gradient norm before clipping; return a warning where one is due."""
        self._small = self._small + 1 if grad_norm < VANISHING else 0
        self._clipped.append(self._limit is not None and grad_norm > self._limit)
        if self._small == VANISHING_STEPS and self._once("vanishing"):
            return (
                f"the gradient vanishes: {VANISHING_STEPS} steps in a row under {VANISHING:g} "
                "before clipping. Set method.rescale=1, take more or earlier active steps, raise "
                "rewards.*.weight; a hinge (rewards.*.target) that is reached gives none either"
            )
        full = len(self._clipped) == CLIPPING_STEPS
        if full and sum(self._clipped) > CLIPPING_SHARE * CLIPPING_STEPS and self._once("clipped"):
            return (
                f"more than {CLIPPING_SHARE:.0%} of the last {CLIPPING_STEPS} steps were clipped "
                f"to train.max_grad_norm = {self._limit:g}, so the step length no longer follows "
                "the gradient. Raise max_grad_norm, or lower method.nested or rewards.*.weight"
            )
        return None

    def _once(self, what: str) -> bool:
        fresh = what not in self._told
        self._told.add(what)
        return fresh


def step_row(
    step: int,
    reports: Sequence[BatchReport],
    means: Mapping[str, float],
    *,
    grad_norm: float,
    learning_rate: float,
    replay: float | None = None,
    bad_steps: int,
    clock: PhaseClock,
) -> dict[str, Any]:
    """The row of one optimiser step.

    Args:
        step: Counted from 1.
        reports: Of this rank's batches.
        means: `loss`, `motion` and `reward/LABEL`, over every batch and rank.
        grad_norm: Of the whole gradient, before clipping.
        learning_rate: Of this step.
        replay: Flow-matching loss of the replayed clips; None where none were.
        bad_steps: Steps skipped so far, this one included.
        clock: Of this step.
    """
    drifts = [report.drift for report in reports if report.drift is not None]
    by_step: dict[int, list[Any]] = defaultdict(list)
    for report in reports:
        for seen in report.steps:
            by_step[seen.step].append(seen)

    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    def mean_if_known(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return mean(known) if known else None

    return {
        "step": step,
        "loss": means["loss"],
        "reward": {
            name.removeprefix("reward/"): value
            for name, value in means.items()
            if name.startswith("reward/")
        },
        "grad_norm": grad_norm,
        "active_steps": [
            {
                "step": i,
                "weight": mean([seen.weight for seen in found]),
                "grad_norm": mean_if_known([seen.gradient_norm for seen in found]),
                "adjoint_norm": mean([seen.adjoint_norm for seen in found]),
                "rerun_error": max(seen.rerun_error for seen in found),
            }
            for i, found in sorted(by_step.items())
        ],
        "rollout": {
            "steps": sum(report.rollout_steps for report in reports),
            "full_steps": sum(report.full_steps for report in reports),
        },
        "motion": means["motion"],
        "drift": mean(drifts) if drifts else None,
        "replay": replay,
        "learning_rate": learning_rate,
        "bad_steps": bad_steps,
        "seconds": dict(clock.seconds) | {"step": sum(clock.seconds.values())},
        "memory": dict(clock.memory),
    }


def plan_table(sigmas: torch.Tensor, plan: Plan) -> str:
    """The sampler's steps with sigma, |weight| in the reward input, and which receive gradient."""
    lines = ["plan of the first step"]
    if plan.active:
        lines[0] += (
            f": reward read at {plan.reward_input.replace('_', ' ')} of step {plan.stop}, gradient "
            f"scale {plan.gradient_scale:.3g}"
        )
        lines.append("  step   sigma  |weight|  gradient")
    for i, weight in enumerate(plan.weights if plan.active else ()):
        mark = "active" if i in plan.active else ""
        lines.append(f"  {i:4d}  {float(sigmas[i]):.4f}  {abs(weight):8.4f}  {mark}".rstrip())
    for number, renoised in enumerate(plan.renoised):
        scale = plan.look(renoised).gradient_scale * renoised.share
        lines.append(
            f"  {plan.steps + number:4d}  {renoised.sigma:.4f}  {abs(renoised.weight):8.4f}  "
            f"active, the end noised again and taken to {renoised.sigma_to:.4f}; gradient scale "
            f"{scale:.3g}"
        )
    return "\n".join(lines)


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
