"""How far the further updates on one rollout are from the policy, and what they cost.

    python -m benchmarks.further_updates [--recipe tiny-demo] [--steps 12] [--updates 4]
                                         [KEY=VALUE ...]

Trains by the recipe with so many updates on each rollout. Before each further update it computes
the gradient that a new rollout of the same noise and the same active steps would give with the
adapter as it is now. Prints JSON, medians and lowest over the steps after the warm-up: for each
further update the cosine of its gradient with that one and the re-run error; for comparison the
cosine of the on-policy gradients of two updates (other active steps and a newer adapter), and of
two steps (other clips); and the process's seconds of a first and of a further update.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from benchmarks.machine import machine
from reward_tuning.progress import silent
from reward_tuning.runs.optimiser import learning_rate
from reward_tuning.schema.loading import load_recipe
from reward_tuning.tuning.draws import Batch, clips_a_step, draw_batch
from reward_tuning.tuning.parts import RunParts, load_parts
from reward_tuning.tuning.step import BatchReport, reward_step, sweep
from reward_tuning.tuning.trainer import start


def measure(
    name: str, overrides: Sequence[str], steps: int, updates: int
) -> dict[str, dict[str, float]]:
    """Medians and lowest of each quantity, over the steps after the warm-up."""
    recipe = load_recipe(name, [*overrides, f"train.updates_per_rollout={updates}"])
    parts = load_parts(recipe, torch.device("cpu"), sys.maxsize, silent)
    state, train = start(recipe, parts), recipe.train
    found: dict[str, list[float]] = defaultdict(list)
    last: Tensor | None = None
    for step in range(1, train.warmup_steps + steps + 1):
        seen: dict[str, float] = {}
        batch = draw_batch(recipe, parts.stream, parts.sigmas, state, Accelerator(), 0)
        rate = learning_rate(train, step)
        seconds, report, gradient = on_policy(parts, batch)
        if last is not None:
            seen["cosine of two steps"] = cosine(gradient, last)
        first = last = gradient
        seen["seconds of a first update"] = seconds
        descend(parts, state.optimiser, rate, train.max_grad_norm)
        assert report.judged is not None
        for number in range(1, updates):
            plans = batch.later_plans[number - 1]
            again = replace(batch, plan=plans[0], more_plans=plans[1:], later_plans=())
            _, _, expected = on_policy(parts, again)
            emptied(parts)
            began = time.process_time()
            reports, _ = sweep(report.judged, parts.parameters, parts.options, update=number)
            seen["seconds of a further update"] = time.process_time() - began
            seen[f"cosine of update {number + 1}"] = cosine(flat(parts), expected)
            seen[f"re-run error of update {number + 1}"] = max(one.rerun_error for one in reports)
            seen[f"cosine of on-policy updates 1 and {number + 1}"] = cosine(first, expected)
            descend(parts, state.optimiser, rate, train.max_grad_norm)
        state.step, state.position = step, step * clips_a_step(train, Accelerator())
        if step > train.warmup_steps:
            for key, value in seen.items():
                found[key].append(value)
    return {
        key: {"median": statistics.median(of), "lowest": min(of), "highest": max(of)}
        for key, of in found.items()
    }


def on_policy(parts: RunParts, batch: Batch) -> tuple[float, BatchReport, Tensor]:
    """The process's seconds of a batch, its report, and its gradient, `(n,)`, left in `.grad`."""
    emptied(parts)
    began = time.process_time()
    report = reward_step(
        parts.sampler,
        parts.judges,
        batch,
        parts.sigmas,
        parameters=parts.parameters,
        options=parts.options,
    )
    return time.process_time() - began, report, flat(parts)


def descend(
    parts: RunParts, optimiser: torch.optim.Optimizer, rate: float, limit: float | None
) -> None:
    """Clip the gradient in `.grad` and take the optimiser's step."""
    if limit is not None:
        nn.utils.clip_grad_norm_(parts.parameters, limit)
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.step()


def emptied(parts: RunParts) -> None:
    for parameter in parts.parameters:
        parameter.grad = None


def flat(parts: RunParts) -> Tensor:
    grads = [p.grad.flatten() for p in parts.parameters if p.grad is not None]
    return torch.cat(grads).double()


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a, b, dim=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="tiny-demo")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(options.recipe, options.overrides, options.steps, options.updates)
    print(json.dumps({"machine": machine(), "found": found}, indent=2))


if __name__ == "__main__":
    main()
