"""Resumable training loop of all embedded models.

The data and the noise of each step come from a generator seeded by (seed, stage, step). There is no
stream to restore, so a resumed run draws the same as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

LossFn = Callable[[int, torch.Generator], tuple[Tensor, dict[str, float]]]
"""(step counted from 0, its generator) -> scalar loss and numbers to report."""

ReportFn = Callable[[str, int, int, dict[str, float]], None]
"""(stage, steps done, steps, mean numbers since the last report)."""


@dataclass(frozen=True)
class Schedule:
    """Length and learning rate of a training: linear warm-up, cosine decay to 1 %, moving average.

    With `optimiser="muon"` kernels and matrices take orthogonalised steps (Muon, scaled to the size
    of AdamW's), and all other parameters take AdamW's. With a `horizon` the cosine ends only there,
    beyond the last step: for a stage that another stage continues.
    """

    steps: int
    learning_rate: float
    horizon: int | None = None
    optimiser: Literal["adamw", "muon"] = "adamw"
    warmup: int = 50
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    checkpoint_every: int = 200
    report_every: int = 20

    def rate(self, step: int) -> float:
        """Return the learning rate of a step (counted from 0)."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, (self.horizon or self.steps) - self.warmup)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * progress)))


def step_seed(seed: int, stage: str, step: int) -> int:
    """Return a 63-bit seed for one step of one stage."""
    digest = hashlib.sha256(f"{seed}/{stage}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def step_generator(seed: int, stage: str, step: int) -> torch.Generator:
    """Return the random generator of one step, for all its draws."""
    return torch.Generator().manual_seed(step_seed(seed, stage, step))


def python_random(generator: torch.Generator) -> random.Random:
    """Return a `random.Random` seeded from a torch generator."""
    return random.Random(int(torch.randint(0, 2**62, (1,), generator=generator)))


SMALLEST_MATRIX = 4
"""Kernels with fewer inputs or outputs (those of RGB) are too small to orthogonalise."""


class Optimiser:
    """AdamW, or Muon for matrices and AdamW for the rest; weight decay applies to matrices only.

    Muon (torch.optim.Muon) takes two-dimensional parameters only. It gets kernels as matrices
    (outputs, everything else) that share the kernels' storage.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], schedule: Schedule) -> None:
        self._matrices: list[tuple[nn.Parameter, nn.Parameter]] = []
        rest = list(parameters)
        rate, decay = schedule.learning_rate, schedule.weight_decay
        self._parts: list[torch.optim.Optimizer] = []
        if schedule.optimiser == "muon":
            if not hasattr(torch.optim, "Muon"):
                raise RuntimeError(
                    f"pre-training needs torch.optim.Muon of torch 2.9, got {torch.__version__}"
                )
            kernels = [p for p in rest if p.ndim >= 2 and min(p.shape[:2]) >= SMALLEST_MATRIX]
            rest = [p for p in rest if p.ndim < 2 or min(p.shape[:2]) < SMALLEST_MATRIX]
            self._matrices = [(p, nn.Parameter(as_matrix(p.detach(), p))) for p in kernels]
            matrices = [matrix for _, matrix in self._matrices]
            self._parts.append(
                torch.optim.Muon(
                    matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
                )
            )
        groups: list[dict[str, Any]] = [
            {"params": [p for p in rest if p.ndim > 1]},
            {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
        ]
        self._parts.append(torch.optim.AdamW(groups, lr=rate, weight_decay=decay))

    def step(self, learning_rate: float) -> None:
        """Take one step at a learning rate from the parameters' gradients."""
        for kernel, matrix in self._matrices:
            matrix.grad = None if kernel.grad is None else as_matrix(kernel.grad, kernel)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = learning_rate
            part.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """Return the states of all parts."""
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, states: Sequence[dict[str, Any]]) -> None:
        """Restore the states from `state_dict`."""
        for part, state in zip(self._parts, states, strict=True):
            part.load_state_dict(state)


def as_matrix(tensor: Tensor, kernel: Tensor) -> Tensor:
    """View a kernel-shaped tensor as (outputs, everything else), in the kernel's memory order.

    For the kernel itself the result is a view, whatever its memory format; a Muon step does not
    depend on the order of the columns.
    """
    order = sorted(range(1, kernel.ndim), key=kernel.stride, reverse=True)
    return tensor.permute(0, *order).reshape(len(tensor), -1)


class OtherRunError(ValueError):
    """The existing checkpoint belongs to another run."""


def train(
    stage: str,
    module: nn.Module,
    loss_fn: LossFn,
    schedule: Schedule,
    *,
    folder: Path,
    seed: int,
    report: ReportFn,
    around_step: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Train `module` in place and leave the moving average of its weights in it.

    Args:
        stage: Name of the stage, for its checkpoint and for the seeds of its steps.
        module: Module of which every parameter that requires a gradient is trained.
        loss_fn: Function that returns a step's scalar loss and numbers to log.
        schedule: Steps and settings of the optimiser.
        folder: Folder of `STAGE.ckpt` and `STAGE.jsonl`; an existing checkpoint is resumed.
        seed: Seed of the run.
        report: Callback, called every `report_every` steps.
        around_step: Function that returns a context for each optimiser step.

    Raises:
        OtherRunError: The checkpoint has another seed or schedule.
        FloatingPointError: The loss or a gradient is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
    buffers = dict(module.named_buffers())
    optimiser = Optimiser(parameters.values(), schedule)
    ema = {name: p.detach().clone() for name, p in parameters.items()}
    start, seconds = 0, 0.0
    run = {"seed": seed, "schedule": repr(schedule)}
    checkpoint = folder / f"{stage}.ckpt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if state["run"] != run:
            raise OtherRunError(
                f"{checkpoint} belongs to another run ({state['run']}; this run is {run}): delete "
                "it to start again, or choose another folder"
            )
        with torch.no_grad():
            for name, p in parameters.items():
                p.copy_(state["parameters"][name])
                ema[name].copy_(state["ema"][name])
            for name, buffer in buffers.items():
                buffer.copy_(state["buffers"][name])
        optimiser.load_state_dict(state["optimiser"])
        start, seconds = state["step"], state["seconds"]
    log = folder / f"{stage}.jsonl"
    keep_rows(log, start)
    clock = time.monotonic() - seconds
    recent: list[dict[str, float]] = []
    for step in range(start, schedule.steps):
        loss, numbers = loss_fn(step, step_generator(seed, stage, step))
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{stage}: loss is {loss.item()} at step {step}")
        module.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters.values(), schedule.max_grad_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"{stage}: gradient norm is {norm.item()} at step {step}")
        with around_step():
            optimiser.step(schedule.rate(step))
        decay = min(schedule.ema_decay, (1.0 + step) / (10.0 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.values()), list(parameters.values()), 1.0 - decay)
        done, seconds = step + 1, time.monotonic() - clock
        recent.append({"loss": loss.item(), "grad_norm": float(norm), **numbers})
        if done % schedule.report_every == 0 or done == schedule.steps:
            row = {"seconds": seconds, **means(recent)}
            recent = []
            report(stage, done, schedule.steps, row)
            with log.open("a") as file:
                file.write(json.dumps({"step": done, **row}) + "\n")
        if done % schedule.checkpoint_every == 0 or done == schedule.steps:
            state = {
                "run": run,
                "parameters": {name: p.detach() for name, p in parameters.items()},
                "buffers": buffers,
                "ema": ema,
                "optimiser": optimiser.state_dict(),
                "step": done,
                "seconds": seconds,
            }
            save_atomically(state, checkpoint)
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(ema[name])


def means(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each number over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: sum(values) / len(values) for name, values in columns.items()}


def keep_rows(log: Path, step: int) -> None:
    """Drop the rows of a log after `step`, which a resumed run writes again."""
    if log.exists():
        rows = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= step]
        log.write_text("".join(row + "\n" for row in rows))


def save_atomically(state: object, path: Path) -> None:
    """Write with `torch.save` under a temporary name, flush and rename."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
