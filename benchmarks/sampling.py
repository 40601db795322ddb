"""What `generate` gains by its caches and its compiler, and what they do to the clips.

    python -m benchmarks.sampling [--checkpoint tiny] [--prompts 32] [--steps 25]
                                  [--guidance-scale 6] [--compile]
                                  [--cache taylor:2 teacache:0.08 first-block:0.1]

Draws the same clips (held-out scenes of the embedded world, in English and Chinese by turns; the
same noise) with each option, one at a time as `generate` does, and holds them against the clips of
the plain sampler. Prints JSON: for each option the process's median seconds of a clip's sampling,
the mean number of steps that ran every block, the mean relative error of the latents, mean and
lowest PSNR of the frames in dB, and the share of clips in which the oracle reads every word of the
prompt, each with the difference to the plain sampler clip by clip (won, lost).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from torch import Tensor

from base_model.generator import Generator, load_generator
from base_model.sampling.guidance import Guidance
from base_model.tiny.captions import LANGUAGES, draw_caption
from base_model.tiny.oracle import judge
from base_model.tiny.scenes import FRAMES, SIDE, scenes
from benchmarks.machine import machine
from reward_tuning.sampling.cheap_steps import CheapSteps
from reward_tuning.sampling.compilation import compile_blocks, uncompiled
from reward_tuning.sampling.draw import decoded, sample_clip
from reward_tuning.schema.cache_kinds import cache_of

PLAIN = "plain"
COMPILED = "--compile"
CACHES = ["taylor:2", "teacache:0.08", "first-block:0.1"]
SIZE = (FRAMES, SIDE, SIDE)


@dataclass(frozen=True)
class Row:
    """One clip of one option."""

    seconds: float
    full_steps: int
    latent_error: float
    psnr: float
    right: bool


def measure(
    generator: Generator,
    options: dict[str, CheapSteps],
    prompts: Sequence[str],
    *,
    steps: int,
    guidance_scale: float,
) -> dict[str, list[Row]]:
    """Every option on the same clips; the first of them is the plain sampler."""
    rows: dict[str, list[Row]] = {name: [] for name in options}
    for seed, prompt in enumerate(prompts):
        plain: tuple[Tensor, Tensor] | None = None
        for name, cheap in options.items():
            with nullcontext() if name == COMPILED else uncompiled(generator.transformer):
                began = time.process_time()
                found = sample_clip(
                    generator,
                    prompt,
                    "",
                    seed=seed,
                    size=SIZE,
                    steps=steps,
                    guidance=Guidance(guidance_scale),
                    cheap=cheap,
                )
                seconds = time.process_time() - began
            clip = decoded(generator, found.latents)
            plain = plain or (found.latents, clip)
            gap = (found.latents - plain[0]).norm() / plain[0].norm()
            right = judge(clip, [prompt]).means()["all_right"] == 1.0
            rows[name].append(
                Row(seconds, found.full_steps, float(gap), psnr(clip, plain[1]), right)
            )
    return rows


def psnr(a: Tensor, b: Tensor) -> float:
    """Of two clips in [0, 1], in dB; infinite where they are equal."""
    error = float((a - b).square().mean())
    return -10 * math.log10(error) if error else math.inf


def table(rows: dict[str, list[Row]]) -> dict[str, dict[str, float | None]]:
    """What the options did, for people; PSNR is None where no clip changed."""
    (plain, *_) = rows.values()
    base = statistics.median(row.seconds for row in plain)
    found: dict[str, dict[str, float | None]] = {}
    for name, own in rows.items():
        finite = [row.psnr for row in own if math.isfinite(row.psnr)]
        seconds = statistics.median(row.seconds for row in own)
        found[name] = {
            "seconds": seconds,
            "speed": base / seconds,
            "full_steps": statistics.mean(row.full_steps for row in own),
            "latent_error": statistics.mean(row.latent_error for row in own),
            "psnr": statistics.mean(finite) if finite else None,
            "lowest_psnr": min(finite) if finite else None,
            "all_right": statistics.mean(row.right for row in own),
            "won": sum(a.right and not b.right for a, b in zip(own, plain, strict=True)),
            "lost": sum(b.right and not a.right for a, b in zip(own, plain, strict=True)),
        }
    return found


def held_out_prompts(count: int) -> list[str]:
    """Captions of held-out scenes, in each language by turns."""
    rng = random.Random("sampling")
    chosen = rng.sample(scenes("held_out"), count)
    return [draw_caption(one, rng, LANGUAGES[i % len(LANGUAGES)]) for i, one in enumerate(chosen)]


def options_of(caches: Sequence[str], compile_too: bool) -> dict[str, CheapSteps]:
    """Name of each option to how it computes the steps."""
    found = {PLAIN: CheapSteps()}
    found |= {f"--cache {text}": CheapSteps(cache=cache_of(text)) for text in caches}
    if compile_too:
        found[COMPILED] = CheapSteps()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", default="tiny")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance-scale", type=float, default=6.0)
    parser.add_argument("--cache", nargs="*", default=CACHES)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    generator = load_generator(arguments.checkpoint)
    options = options_of(arguments.cache, arguments.compile)
    if arguments.compile:
        compile_blocks(generator.transformer)
    how = {"steps": arguments.steps, "guidance_scale": arguments.guidance_scale}
    prompts = held_out_prompts(arguments.prompts)
    began = time.process_time()
    measure(generator, options, prompts[:1], **how)  # warms up, and compiles
    first = time.process_time() - began
    rows = measure(generator, options, prompts, **how)
    about = {"checkpoint": arguments.checkpoint, "prompts": len(prompts), **how}
    about |= {"warm_up_seconds": first, "machine": machine()}
    print(json.dumps(about | {"options": table(rows)}, indent=1))


if __name__ == "__main__":
    main()
