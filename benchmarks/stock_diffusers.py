"""What somebody who opens a checkpoint in stock diffusers gets, size by size, and what mends it.

    python -m benchmarks.stock_diffusers [--checkpoint tiny] [--prompts 16] [--steps 25]
                                         [--guidance-scale 5] [--sizes 64x64 64x96 ...]

diffusers' transformer differs from the published one in two places
(`base_model.networks.corrections`): the rotary grid of every shape but 3:2, and the text stream of
blocks beyond `mmdit_layers`. Each arm draws the same clips (held-out scenes of the embedded world,
the same noise): `stock` with both differences, `text stream mended` with the first alone,
`corrected` with neither; `padded to 256` is corrected and gets its text at the 256 tokens that the
pipelines pad to, which a checkpoint with a shorter text, as the embedded one, was not trained on.
Prints JSON: for each size and arm the relative error of one model call (the prompt's branch) and of
the guided velocity on the states of the right sampling, means over steps and prompts, the relative
error of the latents in the end, and mean and lowest PSNR of the frames in dB.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from base_model.files.shipped import resolve_checkpoint
from base_model.generator import Generator, GuidedCondition, load_generator
from base_model.loading.checkpoint import load_transformer, local_folder
from base_model.networks.corrections import TextStreamProjection
from base_model.networks.prompt_encoder import MAX_TOKENS
from base_model.sampling.guidance import Guidance, guided_velocity
from base_model.sampling.sample import euler_sample
from base_model.sampling.sigmas import sigma_table
from base_model.tiny.scenes import FRAMES
from benchmarks.machine import machine
from benchmarks.sampling import held_out_prompts, psnr

SIZES = ("64x64", "64x96", "96x64", "64x112", "96x96")
CORRECTED = "corrected"


@dataclass(frozen=True)
class Arm:
    """One way to draw: a generator, and how many text tokens it gets."""

    name: str
    generator: Generator
    text_tokens: int


@dataclass(frozen=True)
class Row:
    """One clip of one arm against the right one."""

    velocity_error: float
    guided_error: float
    latent_error: float
    psnr: float


def mend_text_stream(transformer: Any) -> None:
    """The second of the two corrections alone."""
    for block in transformer.transformer_blocks:
        if getattr(block.attn1, "to_add_out", None) is None:
            block.attn1.set_processor(TextStreamProjection(block.attn1.processor))


def arms_of(checkpoint: str) -> list[Arm]:
    """The corrected one first, which the others are held against."""
    folder = local_folder(resolve_checkpoint(checkpoint))
    corrected = load_generator(folder)
    assert corrected.prompt_encoder is not None
    tokens = corrected.prompt_encoder.max_tokens
    arms = [Arm(CORRECTED, corrected, tokens)]
    changes: dict[str, Callable[[Any], object]] = {
        "stock": lambda transformer: None,
        "text stream mended": mend_text_stream,
    }
    for name, change in changes.items():
        arms.append(Arm(name, _with(folder, change), tokens))
    if tokens < MAX_TOKENS:
        arms.append(Arm(f"padded to {MAX_TOKENS}", load_generator(folder), MAX_TOKENS))
    return arms


def _with(folder: Path, change: Callable[[Any], object]) -> Generator:
    """A generator whose transformer is diffusers' own, changed in this way alone."""
    generator = load_generator(folder)
    transformer = load_transformer(folder)
    change(transformer)
    generator.transformer = transformer
    return generator


def condition_of(arm: Arm, prompt: str) -> GuidedCondition:
    """Text states at the arm's length, both branches."""
    encoder = arm.generator.prompt_encoder
    assert encoder is not None
    encoder.max_tokens = arm.text_tokens
    return arm.generator.condition(arm.generator.encode_prompts([prompt], [""]))


@torch.no_grad()
def measure(
    arms: Sequence[Arm],
    prompts: Sequence[str],
    size: tuple[int, int, int],
    *,
    steps: int,
    guidance_scale: float,
) -> dict[str, list[Row]]:
    """Every arm on the same clips of one size (frames, height, width)."""
    sigmas = sigma_table(steps)
    rows: dict[str, list[Row]] = {arm.name: [] for arm in arms}
    for seed, prompt in enumerate(prompts):
        right, *_ = arms
        noise = right.generator.initial_noise(right.generator.latent_shape(1, *size), [seed])
        condition = condition_of(right, prompt)
        states: list[Tensor] = [noise]
        wanted = euler_sample(
            right.generator, condition, noise, sigmas, Guidance(guidance_scale), _collector(states)
        )
        frames = right.generator.decode(wanted)[0]
        velocities = _velocities(right, states, sigmas, condition, guidance_scale)
        for arm in arms:
            own = condition_of(arm, prompt)
            latents = euler_sample(arm.generator, own, noise, sigmas, Guidance(guidance_scale))
            given = _velocities(arm, states, sigmas, own, guidance_scale)
            gaps = [
                [_relative(one, other) for one, other in zip(step, right_step, strict=True)]
                for step, right_step in zip(given, velocities, strict=True)
            ]
            velocity_error, guided_error = map(statistics.mean, zip(*gaps, strict=True))
            drawn = arm.generator.decode(latents)[0]
            error = _relative(latents, wanted)
            rows[arm.name].append(Row(velocity_error, guided_error, error, psnr(drawn, frames)))
    return rows


def _collector(states: list[Tensor]) -> Callable[[int, Tensor], None]:
    return lambda i, x: states.append(x)


def _velocities(
    arm: Arm,
    states: Sequence[Tensor],
    sigmas: Tensor,
    condition: GuidedCondition,
    guidance_scale: float,
) -> list[tuple[Tensor, Tensor]]:
    """At each state but the last: the prompt's branch, and both branches guided."""
    return [
        (
            arm.generator.velocity(x, sigma, condition.positive),
            guided_velocity(arm.generator, x, sigma, condition, Guidance(guidance_scale), "joint"),
        )
        for x, sigma in zip(states[:-1], sigmas, strict=False)
    ]


def _relative(value: Tensor, expected: Tensor) -> float:
    return float((value - expected).norm() / expected.norm())


def table(rows: dict[str, list[Row]]) -> dict[str, dict[str, float | None]]:
    """Means over clips; PSNR is None where no clip differs."""
    found: dict[str, dict[str, float | None]] = {}
    for name, own in rows.items():
        finite = [row.psnr for row in own if math.isfinite(row.psnr)]
        found[name] = {
            "velocity_error": statistics.mean(row.velocity_error for row in own),
            "guided_velocity_error": statistics.mean(row.guided_error for row in own),
            "latent_error": statistics.mean(row.latent_error for row in own),
            "psnr": statistics.mean(finite) if finite else None,
            "lowest_psnr": min(finite) if finite else None,
        }
    return found


def sizes_of(texts: Iterable[str]) -> list[tuple[int, int]]:
    """``64x96`` to (64, 96), height first."""
    return [(int(height), int(width)) for height, _, width in (t.partition("x") for t in texts)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", default="tiny")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance-scale", type=float, default=5.0)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--sizes", nargs="*", default=SIZES)
    arguments = parser.parse_args()
    arms = arms_of(arguments.checkpoint)
    how = {"steps": arguments.steps, "guidance_scale": arguments.guidance_scale}
    prompts = held_out_prompts(arguments.prompts)
    found = {
        f"{height}x{width}": table(measure(arms, prompts, (arguments.frames, height, width), **how))
        for height, width in sizes_of(arguments.sizes)
    }
    about = {"checkpoint": arguments.checkpoint, "prompts": len(prompts), **how}
    print(json.dumps(about | {"machine": machine(), "sizes": found}, indent=1))


if __name__ == "__main__":
    main()
