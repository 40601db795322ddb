"""How well estimates of a reward's gradient agree with the exact one, on the embedded generator.

    python -m benchmarks.gradient_estimates --output FILE.json [--prompts 8] [--picture FILE.png]
    python -m benchmarks.gradient_estimates --report FILE.json [--picture FILE.png]

For each prompt 32 clips are rolled out and scored by HPS, and each has a near clip. The gradient of
the adapter is then swept step by step, from the first K of the clips: once from HPS's own gradient
and once from each estimate (`reward_tuning/gradient/estimates.py`). The table gives the cosine of
the two at each step's sigma: the mean over the prompts, and that of the gradients summed over all
prompts, which is what many steps of a training add up to. The picture needs matplotlib.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.machine import machine
from reward_tuning.gradient.engine import adjoint_sweep, rollout
from reward_tuning.gradient.estimates import group_gradient, paired_gradient
from reward_tuning.gradient.losses import reward_gradient
from reward_tuning.gradient.plan import Plan, chain_weights
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.progress import silent
from reward_tuning.sampling.sampler import RolloutVelocity
from reward_tuning.schema.loading import load_recipe
from reward_tuning.seeds import derive_seed
from reward_tuning.tuning.draws import Batch, draw_plan
from reward_tuning.tuning.parts import RunParts, load_parts
from reward_tuning.tuning.views import starting_noise

COUNTS = (2, 4, 8, 16, 32)
PARTS = (2, 2, 4, 8, 8, 8)
"""Clips of a prompt that are swept together; their sums pass each of `COUNTS`."""
OVERRIDES = ("rewards=[{kind: hps, checkpoint: tiny/hps.safetensors}]", "method.early_stop=false")
Rows = dict[str, dict[str, dict[str, list[float]]]]
"""`group` or `paired` -> K -> step, or `latents` -> cosine of each prompt."""


@dataclass(frozen=True)
class Clips:
    """Some clips of a prompt: what a sweep needs, their losses, and HPS's own gradient."""

    velocity: RolloutVelocity
    states: list[Tensor]
    losses: Tensor
    exact: Tensor


def made_clips(parts: RunParts, judge: FramedJudge, prompt: Prompt, batch: Batch) -> Clips:
    """Roll clips out and score them; `exact` is the gradient of the sum of their losses."""
    sampler, sigmas, count = parts.sampler, parts.sigmas, len(batch.prompts)
    velocity = RolloutVelocity(sampler, sampler.condition(batch.prompts), sigmas)
    states = rollout(velocity, starting_noise(sampler, batch), sigmas, len(sigmas) - 1)
    texts = [prompt.reward_text] * count

    def losses(x: Tensor) -> Tensor:
        return judge.losses_of(judge.scores(sampler.generator.decode(x), texts))

    if batch.near is not None:
        with torch.no_grad():
            return Clips(velocity, states, losses(states[-1]), torch.zeros(()))
    kept = []

    def total(x: Tensor) -> Tensor:
        kept.append(losses(x))
        return kept[-1].sum()

    _, exact = reward_gradient(total, states[-1])
    return Clips(velocity, states, kept[0].detach(), exact)


def swept(parts: RunParts, clips: Clips, g: Tensor, step: int) -> Tensor:
    """The gradient of the adapter through one step, `(n,)`."""
    sigmas = parts.sigmas
    count = len(sigmas) - 1
    for parameter in parts.parameters:
        parameter.grad = None
    plan = Plan(count, count, "end", (step,), chain_weights(sigmas))
    adjoint_sweep(clips.velocity, clips.states, sigmas, plan, g)
    grads = [parameter.grad for parameter in parts.parameters if parameter.grad is not None]
    return torch.cat([grad.flatten() for grad in grads])


def of_prompt(parts: RunParts, prompt: Prompt, number: int, distance: float) -> dict[str, Any]:
    """The exact and the estimated gradients of a prompt: `source -> K -> place -> (n,)`."""
    (judge,) = parts.judges
    assert isinstance(judge, FramedJudge)
    ends = list(itertools.accumulate(PARTS))
    plan = draw_plan(load_recipe("tiny-demo", OVERRIDES), parts.sigmas, step=1, batch=0)
    own, near = [], []
    for start, end in zip([0, *ends], ends, strict=False):
        seeds = [derive_seed(number, "clip", k) for k in range(start, end)]
        batch = Batch([prompt] * len(seeds), seeds, plan)
        own.append(made_clips(parts, judge, prompt, batch))
        close = Batch([prompt] * len(seeds), seeds, plan, near=(0, distance))
        near.append(made_clips(parts, judge, prompt, close))
    x = torch.cat([of.states[-1] for of in own])
    y = torch.cat([of.states[-1] for of in near])
    losses, near_losses = (torch.cat([of.losses for of in some]) for some in (own, near))
    found: dict[str, Any] = {source: defaultdict(dict) for source in ("exact", "group", "paired")}
    for count in COUNTS:
        taken = ends.index(count) + 1
        here = slice(0, count)
        at_end = {
            "exact": torch.cat([of.exact for of in own[:taken]]) / count,
            "group": group_gradient(losses[here], x[here], count),
            "paired": paired_gradient(losses[here], x[here], [(near_losses[here], y[here])]),
        }
        for source, g in at_end.items():
            found[source][count]["latents"] = g.flatten()
            split = g.split(PARTS[:taken])
            for step in range(len(parts.sigmas) - 1):
                sums = [
                    swept(parts, of, part, step)
                    for of, part in zip(own[:taken], split, strict=True)
                ]
                found[source][count][str(step)] = torch.stack(sums).sum(dim=0)
    return found


def measured(prompts: int, distance: float) -> dict[str, Any]:
    """The cosines of every prompt, and those of the sums over the prompts."""
    torch.set_num_threads(1)
    parts = load_parts(load_recipe("tiny-demo", OVERRIDES), torch.device("cpu"), prompts, silent)
    each: Rows = {source: defaultdict(lambda: defaultdict(list)) for source in ("group", "paired")}
    total: dict[tuple[str, int, str], Tensor] = {}
    for number, prompt in enumerate(parts.stream.drawn(prompts)):
        found = of_prompt(parts, prompt, number, distance)
        for source, counts in found.items():
            for count, places in counts.items():
                for place, g in places.items():
                    key = source, count, place
                    total[key] = total.get(key, torch.zeros_like(g)) + g
                    if source != "exact":
                        cosine = F.cosine_similarity(g, found["exact"][count][place], dim=0)
                        each[source][str(count)][place].append(float(cosine))
        print(f"prompt {number + 1} of {prompts}", file=sys.stderr, flush=True)
    summed = {
        source: {
            str(count): {
                place: float(
                    F.cosine_similarity(
                        total[source, count, place], total["exact", count, place], dim=0
                    )
                )
                for place in each[source][str(count)]
                if place != "latents"  # of different clips: their sum means nothing
            }
            for count in COUNTS
        }
        for source in each
    }
    return {
        "prompts": prompts,
        "distance": distance,
        "sigmas": parts.sigmas.tolist(),
        "each": each,
        "summed": summed,
        "machine": machine(),
    }


def report(found: Mapping[str, Any]) -> str:
    """The table as Markdown: mean over prompts with its standard error, and of the sum."""
    steps = [str(step) for step in range(len(found["sigmas"]) - 1)]
    heads = ["latents", *(f"sigma {found['sigmas'][int(step)]:.3g}" for step in steps)]
    lines = [f"| estimate | clips | {' | '.join(heads)} |", "|" + "---|" * (len(heads) + 2)]
    for source, counts in found["each"].items():
        for count, places in counts.items():
            cells = []
            for place in ("latents", *steps):
                values = places[place]
                error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
                cell = f"{statistics.mean(values):+.2f} ± {error:.2f}"
                if place != "latents":
                    cell += f"; {found['summed'][source][count][place]:+.2f}"
                cells.append(cell)
            lines.append(f"| {source} | {count} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def picture(found: Mapping[str, Any], file: Path) -> None:
    """Draw the cosines against the number of clips, one line for each sigma."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    sigmas: Sequence[float] = found["sigmas"][:-1]
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.4), sharex=True, sharey=True)
    for row, (which, title) in enumerate(
        (("each", "mean over prompts"), ("summed", "summed over prompts"))
    ):
        for column, source in enumerate(("group", "paired")):
            axis = axes[row, column]
            for step, sigma in enumerate(sigmas):
                counts = found[which][source]
                values = [counts[str(count)][str(step)] for count in COUNTS]
                heights = [statistics.mean(v) if isinstance(v, list) else v for v in values]
                colour = plt.colormaps["viridis"](step / max(1, len(sigmas) - 1) * 0.9)
                axis.plot(COUNTS, heights, "o-", color=colour, label=f"{sigma:.3g}", markersize=3.5)
            axis.axhline(0.0, color="0.6", linewidth=0.8)
            axis.set_xscale("log", base=2)
            axis.set_xticks(COUNTS, [str(count) for count in COUNTS])
            axis.set_title(f"{source}, {title}", fontsize=10)
            axis.grid(alpha=0.25)
            if column == 0:
                axis.set_ylabel("cosine to the exact gradient")
            if row == 1:
                axis.set_xlabel("clips of a prompt")
    axes[0, 1].legend(title="sigma", fontsize=8, title_fontsize=8, ncol=2)
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Cosines of estimated gradients.")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--distance", type=float, default=0.5, help="of near clips")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--report", type=Path, help="print the table of this file")
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    if arguments.report is None:
        if arguments.output is None:
            parser.error("give --output, or --report")
        found = measured(arguments.prompts, arguments.distance)
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(found), encoding="utf-8")
    found = json.loads((arguments.report or arguments.output).read_text(encoding="utf-8"))
    print(report(found))
    if arguments.picture is not None:
        picture(found, arguments.picture)


if __name__ == "__main__":
    main()
