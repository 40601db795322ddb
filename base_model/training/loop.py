"""One resumable training loop for every embedded model.

Each step's data and noise come from a generator seeded by (seed, stage, step): there is no
stream to restore, so a resumed run draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

LossFn = Callable[[torch.Generator], tuple[Tensor, dict[str, float]]]
ReportFn = Callable[[str, int, int, dict[str, float]], None]
"""(stage, step, steps, numbers)."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: linear warm-up, cosine to a hundredth, AdamW, optional EMA."""

    steps: int
    learning_rate: float
    warmup: int = 50
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    checkpoint_every: int = 200
    report_every: int = 20

    def rate(self, step: int) -> float:
        """Learning rate of a step (counted from 0)."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * progress)))


def step_seed(seed: int, stage: str, step: int) -> int:
    """A 63-bit seed for one step of one stage."""
    digest = hashlib.sha256(f"{seed}/{stage}/{step}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def step_generator(seed: int, stage: str, step: int) -> torch.Generator:
    """The generator that every draw of one step comes from."""
    return torch.Generator().manual_seed(step_seed(seed, stage, step))


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
    """Train `module` in place; leave it holding the EMA weights.

    Args:
        stage: Name of the stage; names its checkpoint and seeds its draws.
        module: What is trained: every parameter that requires a gradient.
        loss_fn: One step's scalar loss and numbers to log, from that step's generator.
        schedule: Steps and optimiser settings.
        folder: Where `STAGE.ckpt` and `STAGE.jsonl` are kept; an existing checkpoint resumes.
        seed: The run's seed.
        report: Called every `report_every` steps.
        around_step: A context entered around each optimiser step.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(
        parameters.values(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    ema = {name: p.detach().clone() for name, p in parameters.items()}
    start, seconds = 0, 0.0
    checkpoint = folder / f"{stage}.ckpt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        with torch.no_grad():
            for name, p in parameters.items():
                p.copy_(state["parameters"][name])
                ema[name].copy_(state["ema"][name])
        optimiser.load_state_dict(state["optimiser"])
        start, seconds = state["step"], state["seconds"]
    log = folder / f"{stage}.jsonl"
    keep_rows(log, start)
    clock = time.monotonic() - seconds
    for step in range(start, schedule.steps):
        loss, numbers = loss_fn(step_generator(seed, stage, step))
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{stage}: loss is {loss.item()} at step {step}")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters.values(), schedule.max_grad_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError(f"{stage}: gradient norm is {norm.item()} at step {step}")
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate(step)
        with around_step():
            optimiser.step()
        decay = min(schedule.ema_decay, (1.0 + step) / (10.0 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(ema.values()), list(parameters.values()), 1.0 - decay)
        done, seconds = step + 1, time.monotonic() - clock
        if done % schedule.report_every == 0 or done == schedule.steps:
            row = {"loss": loss.item(), "grad_norm": float(norm), "seconds": seconds, **numbers}
            report(stage, done, schedule.steps, row)
            with log.open("a") as file:
                file.write(json.dumps({"step": done, **row}) + "\n")
        if done % schedule.checkpoint_every == 0 or done == schedule.steps:
            state = {
                "parameters": {name: p.detach() for name, p in parameters.items()},
                "ema": ema,
                "optimiser": optimiser.state_dict(),
                "step": done,
                "seconds": seconds,
            }
            save_atomically(state, checkpoint)
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(ema[name])


def keep_rows(log: Path, step: int) -> None:
    """Drop a log's rows after `step`: a resumed run writes them again."""
    if log.exists():
        rows = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= step]
        log.write_text("".join(row + "\n" for row in rows))


def save_atomically(state: object, path: Path) -> None:
    """`torch.save` under a temporary name, flushed, then renamed."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def draws(generator: torch.Generator) -> Iterator[int]:
    """An endless stream of 62-bit integers, to seed what does not take a torch generator."""
    while True:
        yield int(torch.randint(0, 2**62, (1,), generator=generator))
