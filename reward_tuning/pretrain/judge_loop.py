"""One resumable training loop for the embedded judges.

A step's randomness depends on (judge, seed, step) alone, so what a checkpoint must hold is weights,
optimiser and the number of steps done; a resumed run ends in the same weights as an
uninterrupted one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reward_tuning.errors import TuningError


@dataclass(frozen=True)
class JudgeProgress:
    """One line of progress.

    Attributes:
        judge: name of the judge.
        step: steps done.
        steps: steps in all.
        metrics: running means of the losses and accuracies since the last line.
        seconds_left: estimate from the speed since the start or resume.
    """

    judge: str
    step: int
    steps: int
    metrics: dict[str, float]
    seconds_left: float


OnProgress = Callable[[JudgeProgress], None]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes:
        steps: optimiser steps.
        learning_rate: peak; linear warm-up, then half a cosine to zero.
        warm_up: steps of the warm-up.
        save_every: steps between checkpoints.
        report_every: steps between progress lines.
    """

    steps: int
    learning_rate: float
    warm_up: int = 30
    save_every: int = 50
    report_every: int = 10

    def rate(self, step: int) -> float:
        """Learning rate of a step, from 0."""
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / self.warm_up
        part = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * part))


def train(
    judge: str,
    model: nn.Module,
    loss_of: Callable[[int], tuple[Tensor, dict[str, float]]],
    schedule: Schedule,
    progress_file: Path,
    fingerprint: str,
    on_progress: OnProgress | None = None,
) -> None:
    """Train ``model`` in place; continue from ``progress_file`` when it is there.

    Args:
        judge: name, for the progress lines.
        model: whose trainable parameters are optimised with AdamW.
        loss_of: step -> loss and numbers to report; all its randomness comes from the step.
        schedule: steps and learning rate.
        progress_file: written every ``save_every`` steps, whole or not at all.
        fingerprint: what the run is (seed, settings); another one's progress is refused.
        on_progress: called every ``report_every`` steps.

    Raises:
        TuningError: the progress file belongs to another run, or the loss is not finite.
    """
    optimizer = torch.optim.AdamW(_groups(model), lr=schedule.learning_rate, betas=(0.9, 0.98))
    first = _resume(progress_file, fingerprint, model, optimizer)
    sums: dict[str, float] = {}
    started = time.monotonic()
    for step in range(first, schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        loss, metrics = loss_of(step)
        if not bool(torch.isfinite(loss)):
            raise TuningError(
                f"training {judge}: the loss of step {step} is {float(loss.detach())}. Delete "
                f"{progress_file} and start again with another seed."
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        done = step + 1
        for name, value in {"loss": float(loss.detach()), **metrics}.items():
            sums[name] = sums.get(name, 0.0) + value
        if done % schedule.save_every == 0 or done == schedule.steps:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            save_whole(progress_file, {"step": done, "fingerprint": fingerprint, **state})
        if done % schedule.report_every == 0 and on_progress is not None:
            means = {name: value / schedule.report_every for name, value in sums.items()}
            left = (time.monotonic() - started) / (done - first) * (schedule.steps - done)
            on_progress(JudgeProgress(judge, done, schedule.steps, means, left))
            sums = {}


def save_whole(path: Path, content: Any) -> None:
    """Write a torch file so that a reader finds the old one or the new one, never a half."""
    temporary = path.with_name(path.name + ".part")
    torch.save(content, temporary)
    temporary.replace(path)


def _groups(model: nn.Module) -> list[dict[str, Any]]:
    decayed: Iterable[nn.Parameter] = [
        p for p in model.parameters() if p.requires_grad and p.ndim > 1
    ]
    plain: Iterable[nn.Parameter] = [
        p for p in model.parameters() if p.requires_grad and p.ndim < 2
    ]
    return [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]


def _resume(
    path: Path, fingerprint: str, model: nn.Module, optimizer: torch.optim.Optimizer
) -> int:
    if not path.is_file():
        return 0
    saved = torch.load(path, map_location="cpu", weights_only=True)
    if saved["fingerprint"] != fingerprint:
        raise TuningError(
            f"{path} is the progress of another run ({saved['fingerprint']}, this one is "
            f"{fingerprint}). Delete it to start again, or choose another folder."
        )
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    step: int = saved["step"]
    return step
