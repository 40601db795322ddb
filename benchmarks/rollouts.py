"""What a cheaper rollout saves, and what it does to the gradient.

    python -m benchmarks.rollouts [--recipe tiny-drtune-hps] [--batches 4] [--compile]
                                  [--cache taylor:2 teacache:0.08 first-block:0.1]

Each option computes the same batches of a recipe (prompts, noise, plans of its first steps, the
adapter as it begins; 16 steps to their end), one after the other, and is compared with the exact
rollout. Prints JSON: for each option the process's seconds of the rollout and of the whole batch,
the steps that ran every block, how far x_N is from the exact one, and the cosine of the whole
gradient of the adapter with the exact one. Active sets and restarts have another gradient on
purpose: of them only the seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor

from benchmarks.machine import machine
from benchmarks.sampling import CACHES
from reward_tuning.progress import silent
from reward_tuning.sampling.compilation import compile_blocks, uncompiled
from reward_tuning.schema.cache_kinds import cache_of
from reward_tuning.schema.loading import load_recipe
from reward_tuning.tuning.draws import Batch, clips_a_step, draw_batch
from reward_tuning.tuning.parts import RunParts, load_parts, step_options
from reward_tuning.tuning.step import BatchReport, StepOptions, reward_step
from reward_tuning.tuning.trainer import start
from reward_tuning.tuning.views import rolled_out

EXACT = "exact"
WHOLE = ("sampling.steps=16", "method.early_stop=false", "train.decoded=all")
"""Rollouts long enough to have something to save, to their end, which a restart needs."""
DEVICE = torch.device("cpu")


def options(caches: Sequence[str], compile_too: bool) -> dict[str, list[str]]:
    """Name of each option to the overrides that switch it on."""
    found: dict[str, list[str]] = {EXACT: []}
    for text in caches:
        cache = cache_of(text)
        assert cache is not None, "the exact rollout is always there"
        found[f"cache {text}"] = [f"rollout.cache={cache.model_dump_json(exclude_none=True)}"]
    found["bfloat16"] = ["rollout.dtype=bfloat16"]
    if compile_too:
        found["compile"] = ["train.compile=true"]
    found["2 active sets"] = ["train.active_sets=2"]
    found["1 restart"] = ["train.restarts=1"]
    return found


def measure(
    name: str, overrides: Sequence[str], arms: dict[str, list[str]], batches: int
) -> dict[str, dict[str, float]]:
    """Every option on the same batches of a recipe: its medians over them."""
    recipes = {arm: load_recipe(name, [*overrides, *own]) for arm, own in arms.items()}
    exact = recipes[EXACT]
    parts = load_parts(exact, DEVICE, sys.maxsize, silent)
    transformer = parts.sampler.generator.transformer
    if any(recipe.train.compile for recipe in recipes.values()):
        compile_blocks(transformer)
    choices = {arm: step_options(recipe) for arm, recipe in recipes.items()}
    rows: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number in range(batches + 1):
        gradients: dict[str, Tensor] = {}
        ends: dict[str, Tensor] = {}
        for arm, recipe in recipes.items():
            state = start(recipe, parts)
            state.step, state.position = number, number * clips_a_step(recipe.train, Accelerator())
            batch = draw_batch(recipe, parts.stream, parts.sigmas, state, Accelerator(), 0)
            with nullcontext() if recipe.train.compile else uncompiled(transformer):
                seconds, report, gradients[arm] = one_batch(parts, batch, choices[arm])
            row = {
                "rollout_seconds": seconds["rollout"],
                "batch_seconds": sum(seconds.values()),
                "steps": report.rollout_steps,
                "full_steps": report.full_steps,
            }
            if not (batch.more_plans or batch.restarts):
                with nullcontext() if recipe.train.compile else uncompiled(transformer):
                    ends[arm] = end_of(parts, batch, choices[arm])
                gap = (ends[arm] - ends[EXACT]).norm() / ends[EXACT].norm()
                row["end_error"] = float(gap)
                row["gradient_cosine"] = float(
                    torch.cosine_similarity(gradients[arm], gradients[EXACT], dim=0)
                )
            if number:  # the first batch warms up, and compiles
                rows[arm].append(row)
    return {
        arm: {key: statistics.median(row[key] for row in found) for key in found[0]}
        | ({"lowest_cosine": min(r["gradient_cosine"] for r in found)} if arm in ends else {})
        for arm, found in rows.items()
    }


def one_batch(
    parts: RunParts, batch: Batch, options: StepOptions
) -> tuple[dict[str, float], BatchReport, Tensor]:
    """The process's seconds of each phase, what the batch showed, and the gradient, `(n,)`."""
    seconds: dict[str, float] = {}

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        began = time.process_time()
        yield
        seconds[name] = time.process_time() - began

    for parameter in parts.parameters:
        parameter.grad = None
    report = reward_step(
        parts.sampler,
        parts.judges,
        batch,
        parts.sigmas,
        parameters=parts.parameters,
        options=options,
        phase=phase,
    )
    grads = [p.grad.flatten() for p in parts.parameters if p.grad is not None]
    return seconds, report, torch.cat(grads).double()


def end_of(parts: RunParts, batch: Batch, options: StepOptions) -> Tensor:
    """Return the last state of the batch's rollout, `(b, 16, t, h, w)`."""
    found = rolled_out(parts.sampler, batch, parts.sigmas, options.cheap)
    return found.views[0].states[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", default="tiny-drtune-hps")
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--cache", nargs="*", default=CACHES)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("overrides", nargs="*", help="key.sub=value")
    arguments = parser.parse_args()
    arms = options(arguments.cache, arguments.compile)
    overrides = [*WHOLE, *arguments.overrides]
    found = measure(arguments.recipe, overrides, arms, arguments.batches)
    about = {"recipe": arguments.recipe, "batches": arguments.batches, "machine": machine()}
    print(json.dumps(about | {"options": found}, indent=1))


if __name__ == "__main__":
    main()
