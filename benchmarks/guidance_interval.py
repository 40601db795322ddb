"""What an interval of guidance saves, and what it does to gradient and clips.

    python -m benchmarks.guidance_interval [--recipe tiny-drtune-hps] [--batches 8] [--prompts 24]
                                           [--steps 25] [--interval 0.2 0.9] [--interval 0 0.8] ...

Training: each arm computes the same batches of a recipe (prompts, noise and plans of its first
steps, the adapter as it begins) and is compared with guidance at all noise levels. Clips: each arm
samples the same held-out prompts from the same noise, and is compared with the plain clip. The arm
`none` runs the positive branch alone at every step. Prints JSON: for each arm the samples that the
transformer ran for a clip (2 for a guided step, 1 for another) in rollout, sweep and sampling, the
process's seconds, the cosine of the whole gradient of the adapter with the plain one, the ratio of
their lengths, PSNR of the clips, and in how many clips the oracle finds every word.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from base_model.sampling.guidance import Guidance, Interval
from base_model.sampling.sigmas import sigma_table
from base_model.tiny.oracle import judge
from benchmarks.machine import machine
from benchmarks.rollouts import DEVICE
from benchmarks.sampling import psnr
from reward_tuning.progress import silent
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.draws import Batch, clips_a_step, draw_batch
from reward_tuning.tuning.parts import RunParts, load_parts
from reward_tuning.tuning.step import reward_step
from reward_tuning.tuning.trainer import start

PLAIN, NONE = "everywhere", "none"
INTERVALS = ((0.2, 0.9), (0.0, 0.8), (0.3, 1.0), (0.5, 1.0))


@dataclass(frozen=True)
class Row:
    """One batch of one arm.

    Attributes:
        rollout_calls: Samples that the transformer ran for a clip in the rollout.
        sweep_calls: The same in the sweep.
        rollout_seconds: Of the process.
        batch_seconds: Of the process, with reward and sweep.
        cosine: Of the gradient with that of guidance everywhere.
        length: Of the gradient, in lengths of that one.
    """

    rollout_calls: float
    sweep_calls: float
    rollout_seconds: float
    batch_seconds: float
    cosine: float
    length: float


def samplers(plain: ClipSampler, intervals: Sequence[Interval]) -> dict[str, ClipSampler]:
    """Name of each arm to its sampler; the first is guided at all noise levels."""
    found = {PLAIN: replace(plain, guidance=replace(plain.guidance, interval=None))}
    for low, high in intervals:
        guidance = replace(plain.guidance, interval=(low, high))
        found[f"[{low:g}, {high:g}]"] = replace(plain, guidance=guidance)
    # scale 1 for the clips, which are sampled with guidance whatever `negative` is
    found[NONE] = replace(plain, guidance=Guidance(1.0), negative="none")
    return {name: replace(one, latents_guidance=one.guidance) for name, one in found.items()}


@contextmanager
def samples_run(transformer: Any, calls: dict[str, int], phase: Sequence[str]) -> Iterator[None]:
    """Count the samples that the transformer runs, under the last phase that was entered."""

    def count(module: Any, arguments: Sequence[Tensor]) -> None:
        calls[phase[-1]] += len(arguments[0])

    with transformer.register_forward_pre_hook(count):
        yield


def gradients(
    recipe: Recipe, parts: RunParts, arms: Mapping[str, ClipSampler], batches: int
) -> dict[str, list[Row]]:
    """Every arm on the same batches of the recipe: its rows."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for number in range(batches):
        state = start(recipe, parts)
        state.step, state.position = number, number * clips_a_step(recipe.train, Accelerator())
        batch = draw_batch(recipe, parts.stream, parts.sigmas, state, Accelerator(), 0)
        plain: Tensor | None = None
        for name, sampler in arms.items():
            seconds, calls, gradient = one_batch(parts, sampler, batch)
            plain = gradient if plain is None else plain
            clips = len(batch.prompts)
            rows[name].append(
                Row(
                    calls["rollout"] / clips,
                    calls["sweep"] / clips,
                    seconds["rollout"],
                    sum(seconds.values()),
                    float(torch.cosine_similarity(gradient, plain, dim=0)),
                    float(gradient.norm() / plain.norm()),
                )
            )
    return rows


def one_batch(
    parts: RunParts, sampler: ClipSampler, batch: Batch
) -> tuple[dict[str, float], dict[str, int], Tensor]:
    """The process's seconds and the transformer's samples of each phase; the gradient, `(n,)`."""
    seconds: dict[str, float] = {}
    calls: dict[str, int] = defaultdict(int)
    phases = [""]

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        phases.append(name)
        began = time.process_time()
        yield
        seconds[name] = time.process_time() - began

    for parameter in parts.parameters:
        parameter.grad = None
    with samples_run(sampler.generator.transformer, calls, phases):
        reward_step(
            sampler,
            parts.judges,
            replace(batch, guidance_scale=None),  # each arm has its own
            parts.sigmas,
            parameters=parts.parameters,
            options=parts.options,
            phase=phase,
        )
    grads = [p.grad.flatten() for p in parts.parameters if p.grad is not None]
    return seconds, calls, torch.cat(grads).double()


@torch.no_grad()
def clips(
    arms: Mapping[str, ClipSampler], prompts: Sequence[Any], steps: int
) -> dict[str, dict[str, float | None]]:
    """Every arm on the same prompts and noise: samples run, PSNR to the plain clip, right ones."""
    sigmas = sigma_table(steps)
    found: dict[str, list[tuple[float, float, bool]]] = defaultdict(list)
    for seed, prompt in enumerate(prompts):
        plain: Tensor | None = None
        for name, sampler in arms.items():
            calls: dict[str, int] = defaultdict(int)
            with samples_run(sampler.generator.transformer, calls, ["clip"]):
                latents = sampler.latents([prompt], [seed], sigmas)
            clip = sampler.generator.decode(latents)
            plain = clip if plain is None else plain
            right = judge(clip, [prompt.text]).means()["all_right"] == 1.0
            found[name].append((calls["clip"], psnr(clip, plain), right))
    table: dict[str, dict[str, float | None]] = {}
    for name, of in found.items():
        ran, quality, right = zip(*of, strict=True)
        table[name] = {
            "clip_calls": statistics.mean(ran),
            "psnr": None if name == PLAIN else statistics.mean(quality),
            "lowest_psnr": None if name == PLAIN else min(quality),
            "right": sum(right),
        }
    return table


def table(rows: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, float]]:
    """Medians of each arm, and the lowest cosine."""
    return {
        name: {
            key: statistics.median(getattr(row, key) for row in found)
            for key in Row.__dataclass_fields__
        }
        | {"lowest_cosine": min(row.cosine for row in found)}
        for name, found in rows.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", default="tiny-drtune-hps")
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--steps", type=int, default=25, help="of a clip")
    parser.add_argument("--interval", type=float, nargs=2, action="append")
    parser.add_argument("overrides", nargs="*", help="key.sub=value")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe, arguments.overrides)
    parts = load_parts(recipe, DEVICE, sys.maxsize, silent)
    intervals = [tuple(one) for one in arguments.interval or INTERVALS]
    arms = samplers(parts.sampler, intervals)
    found = table(gradients(recipe, parts, arms, arguments.batches))
    of_clips = clips(arms, parts.held_out[: arguments.prompts], arguments.steps)
    about = {
        "recipe": arguments.recipe,
        "overrides": arguments.overrides,
        "batches": arguments.batches,
        "prompts": arguments.prompts,
        "steps": arguments.steps,
        "machine": machine(),
    }
    print(json.dumps(about | {"arms": {k: found[k] | of_clips[k] for k in arms}}, indent=1))


if __name__ == "__main__":
    main()
