"""Compare the small decoder with the VAE's: the reward's gradient by noise level, and its time.

    python -m benchmarks.small_decoder [--recipe tiny-demo] [key=value ...] [--rollouts 4]
        [--repeats 5] [--json FILE]

The recipe's sampler rolls out held-out prompts. At each step the judges see the posterior mean, and
at the end the clip: the frames of one latent, as `decoded: random-window` shows them. Printed for
each noise level, as means over clips: PSNR of the small decoder's frames in dB, and for each judge
(held-out ones, too) the cosine of the gradient of its score by the latents to the one through the
VAE, for `train.decoder: small` and `small-gradient`; `loss` is the recipe's loss. Then the
processor time of the reward phase of one batch, forward and backward, with each decoder in turn:
the median over the repeats, averaged over the places of the window.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from base_model.networks.small_decoder import DecodedBy
from benchmarks.machine import machine
from reward_tuning.gradient.engine import rollout
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.judges.judging import on_frames
from reward_tuning.judges.loading import load_judges
from reward_tuning.pretrain.small_decoder import shown_latents
from reward_tuning.progress import silent
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.schema.loading import load_recipe
from reward_tuning.seeds import derive_seed
from reward_tuning.tuning.draws import frames_of
from reward_tuning.tuning.parts import RunParts, load_parts

LOSS = "loss"
OTHERS: tuple[DecodedBy, ...] = ("small", "small-gradient")


def reward_phase(
    sampler: ClipSampler,
    judges: Sequence[FramedJudge],
    latents: Tensor,
    texts: Sequence[str],
    latent: int,
    *,
    by: DecodedBy,
) -> Tensor:
    """Return the gradient of the judges' loss by the latents, of the frames of one latent."""
    x = latents.detach().requires_grad_()
    verdicts = on_frames(
        sampler, judges, x, texts, seeds=[0] * len(x), frames=tuple(frames_of(latent)), by=by
    )
    assert verdicts is not None, "frames that are not finite"
    (gradient,) = torch.autograd.grad(torch.stack([loss for loss, _ in verdicts.values()]).sum(), x)
    return gradient


def psnr(sampler: ClipSampler, latents: Tensor, latent: int) -> Tensor:
    """Return the PSNR of the small decoder's frames of one latent, `(b,)` in dB."""
    frames = frames_of(latent)
    window = slice(frames[0], frames[-1] + 1)
    with torch.no_grad():
        true = sampler.generator.decode(latents, window)
        near = sampler.generator.decode(latents, window, by="small")
    return -10.0 * (true - near).square().flatten(1).mean(dim=1).log10()


def compared(
    parts: RunParts, judges: Sequence[FramedJudge], seed: int, rollouts: int, batch: int
) -> list[dict[str, Any]]:
    """Return a row for each noise level: `sigma`, `psnr`, and mean cosines by decoder and judge."""
    sampler, sigmas = parts.sampler, parts.sigmas
    trained = [judge for judge in parts.judges if isinstance(judge, FramedJudge)]
    asked = {LOSS: trained, **{judge.label: [judge] for judge in judges}}
    found: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number in range(rollouts):
        prompts = [parts.held_out[(number * batch + i) % len(parts.held_out)] for i in range(batch)]
        texts = [prompt.reward_text for prompt in prompts]
        noise = sampler.noise([derive_seed(seed, "benchmark", number, i) for i in range(batch)])
        velocity = sampler.velocity(sampler.condition(prompts), sigmas)
        states = rollout(velocity, noise, sigmas, len(sigmas) - 1)
        for level, latents in enumerate(shown_latents(states, sigmas)):
            latent = (number + level) % latents.shape[2]  # every place at every level, in turn
            row = found[level]
            row["psnr"] += psnr(sampler, latents, latent).tolist()
            for name, of in asked.items():
                true, *near = (
                    reward_phase(sampler, of, latents, texts, latent, by=by).flatten(1)
                    for by in ("vae", *OTHERS)
                )
                for by, gradient in zip(OTHERS, near, strict=True):
                    row[f"{by} {name}"] += F.cosine_similarity(true, gradient, dim=1).tolist()
        print(f"{number + 1}/{rollouts} rollouts", file=sys.stderr, flush=True)
    levels = [*sigmas[:-1].tolist(), 0.0]
    return [
        {"sigma": levels[level]} | {name: statistics.fmean(values) for name, values in row.items()}
        for level, row in sorted(found.items())
    ]


def timed(parts: RunParts, batch: int, repeats: int) -> dict[str, float]:
    """Return processor seconds of the reward phase with each decoder, taken in turn."""
    sampler = parts.sampler
    judges = [judge for judge in parts.judges if isinstance(judge, FramedJudge)]
    prompts = [parts.held_out[i % len(parts.held_out)] for i in range(batch)]
    texts = [prompt.reward_text for prompt in prompts]
    latents = sampler.noise(range(batch))
    seconds: dict[str, list[float]] = defaultdict(list)
    for latent in range(latents.shape[2]):
        of_place: dict[str, list[float]] = defaultdict(list)
        for repeat in range(repeats + 1):
            for by in ("vae", *OTHERS):
                start = time.process_time()
                reward_phase(sampler, judges, latents, texts, latent, by=by)
                if repeat:  # the first one warms up
                    of_place[by].append(time.process_time() - start)
        for name, values in of_place.items():
            seconds[name].append(statistics.median(values))
    return {name: statistics.fmean(values) for name, values in seconds.items()}


def table(rows: Sequence[dict[str, Any]], by: DecodedBy) -> str:
    """Format the rows of `compared` for one decoder."""
    names = [name for name in rows[0] if name.startswith(f"{by} ")]
    heads = [name.removeprefix(f"{by} ") for name in names]
    widths = [max(len(head), 6) for head in heads]
    lines = [" sigma  " + "  ".join(f"{h:>{w}}" for h, w in zip(heads, widths, strict=True))]
    for row in rows:
        cells = "  ".join(f"{row[name]:{w}.3f}" for name, w in zip(names, widths, strict=True))
        lines.append(f"{row['sigma']:6.3f}  {cells}")
    return "\n".join([f"cosine to the VAE's gradient, {by}:", *lines])


def main() -> None:
    """Measure, print the table and the times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="tiny-demo")
    parser.add_argument("overrides", nargs="*", help="key.sub=value for the recipe")
    parser.add_argument("--rollouts", type=int, default=4, help="of train.batch_size clips")
    parser.add_argument("--repeats", type=int, default=5, help="of each timed reward phase")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    changes = ["output=unused", "train.decoder=small", *arguments.overrides]
    recipe = load_recipe(arguments.recipe, changes)
    batch, cpu = recipe.train.batch_size, torch.device("cpu")
    parts = load_parts(recipe, cpu, batch, silent)
    held_out = load_judges(recipe.evaluation.held_out_rewards, recipe.sampling.frames, cpu)
    judges = [j for j in (*parts.judges, *held_out) if isinstance(j, FramedJudge)]
    rows = compared(parts, judges, recipe.seed, arguments.rollouts, batch)
    print("PSNR: " + ", ".join(f"{row['psnr']:.1f}" for row in rows))
    for by in OTHERS:
        print(table(rows, by))
    times = timed(parts, batch, arguments.repeats)
    for name, seconds in times.items():
        part = seconds / times["vae"]
        print(f"reward phase of {batch} clips, {name}: {seconds:.3f} s, {part:.2f} of the VAE's")
    if arguments.json is not None:
        record = {"machine": machine(), "levels": rows, "seconds": times}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
