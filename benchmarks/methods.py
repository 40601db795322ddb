"""Every method on the embedded world, at an equal wall-clock budget.

    python -m benchmarks.methods [--recipes NAME ...] [--arm LABEL RECIPE KEY=VALUE ...]
                                 [--seeds 0 1 2] [--seconds 150] [--clock wall|process]
                                 [--prompts 48] [--clips 2] [--output FILE.jsonl]
    python -m benchmarks.methods --report FILE.jsonl ... [--table FILE.md] [--picture FILE.png]

Each run has a process of its own, trains by its shipped recipe for so many seconds of optimiser
steps (loading and evaluation are not counted), and is then measured against the base on held-out
prompts with equal noise: HPS, the held-out judge, the oracle, motion, diversity. `--arm` adds a
recipe with overrides under a name of its own; `--arm still tiny-drtune-hps
train.learning_rate=1.0e-12` gives the picture its zero. Every finished run is one line of the
output; runs whose line is there are not made again. Needs no GPU; the picture needs matplotlib.

On a machine that does other work, `--clock process` counts the process's own time on one thread,
which is the wall's of an idle core.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.trainee import CLOCKS, JUDGES, Trainee
from reward_tuning.statistics.bootstrap import paired_difference

BASE = "base"
STILL = "still"
"""An arm of this name that learns nothing is what the picture measures the others against."""
UNMOVED = 4  # steps of the warm-up in which the adapter does next to nothing
RECIPES = (
    "tiny-draft-hps",
    "tiny-draft-k-hps",
    "tiny-draft-lv-hps",
    "tiny-alignprop-hps",
    "tiny-drtune-hps",
    "tiny-refl-hps",
    "tiny-leapalign-hps",
    "tiny-flowbp-sparse-hps",
    "tiny-flowbp-bridge-hps",
    "tiny-flowbp-lagrange-hps",
    "tiny-direct-align-hps",
    "tiny-easyanimate-hps",
    "tiny-prfl-latent",
    "tiny-adjoint-matching-hps",
    "tiny-awm-hps",
    "tiny-nft-hps",
)
OTHER_REWARDS = ("tiny-prfl-latent",)
"""Trained on something else than a score of HPS."""

METRICS = ("hps", "clip_held_out", "oracle", "motion", "diversity")
"""`diversity` is missing where each prompt has one clip."""


@dataclass(frozen=True)
class Settings:
    """What every run of a comparison has in common.

    Attributes:
        seconds: Of optimiser steps, on the clock.
        clock: A key of `CLOCKS`; `process` runs on one thread.
        prompts: Held-out ones.
        clips: Of each prompt.
    """

    seconds: float
    clock: str
    prompts: int
    clips: int


def one_run(
    label: str, name: str, overrides: Sequence[str], seed: int, settings: Settings
) -> dict[str, Any]:
    """Train a recipe for so long, and measure it; `base` is measured untrained.

    Returns:
        The run's line: `recipe` (the label), `seed`, `steps`, `seconds`, `peak_bytes`, `curve`
        (seconds and mean training reward of each step) and `values`, metric to one value a prompt.
    """
    trainee = Trainee(name, overrides, seed=seed, clock=settings.clock, prompts=settings.prompts)
    base = label == BASE
    while not base and trainee.seconds < settings.seconds:
        trainee.step()
    scores = trainee.measure(settings.clips, base=base)
    return {
        "recipe": label,
        "of": name,
        "overrides": list(overrides),
        "seed": seed,
        "steps": trainee.state.step,
        "seconds": trainee.seconds,
        "peak_bytes": trainee.peak_bytes,
        "curve": trainee.curve,
        "values": {metric: list(of.values()) for metric, of in scores.values.items()},
        "settings": asdict(settings),
        "machine": machine(),
    }


def all_runs(arguments: argparse.Namespace) -> None:
    """Make every run that is not in the output yet, each in a process of its own."""
    output: Path = arguments.output
    output.parent.mkdir(parents=True, exist_ok=True)
    lines = read(output) if output.exists() else []
    settings = asdict(settings_of(arguments))
    if any(line["settings"] != settings for line in lines):
        raise SystemExit(f"{output} holds runs of other settings; give another --output")
    done = {(line["recipe"], line["seed"]) for line in lines}
    arms = [[BASE, JUDGES], *([name, name] for name in arguments.recipes), *arguments.arm]
    for seed in arguments.seeds:
        for arm in arms:
            if (arm[0], seed) in done:
                continue
            print(f"{arm[0]}, seed {seed}", file=sys.stderr, flush=True)
            command = [sys.executable, "-m", "benchmarks.methods", "--one", str(seed)]
            for name, value in settings.items():
                command += [f"--{name}", str(value)]
            made = subprocess.run(
                [*command, "--recipes", "--arm", *arm],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            with output.open("a", encoding="utf-8") as file:
                file.write(made.stdout.splitlines()[-1] + "\n")


def settings_of(arguments: argparse.Namespace) -> Settings:
    """The part of the command line that every run shares."""
    return Settings(arguments.seconds, arguments.clock, arguments.prompts, arguments.clips)


def read(path: Path) -> list[dict[str, Any]]:
    """The runs of an output file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def differences(lines: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each recipe against the base.

    The values of a prompt are averaged over the seeds first, and the interval is over prompts: it
    says how sure the mean of these training runs is, not how much a further seed may differ.

    Returns:
        Recipe to `{"runs", "steps", "seconds", "peak_bytes", METRIC: Interval, "spread": {METRIC:
        largest minus smallest mean over the seeds}}`.
    """
    base = {line["seed"]: line["values"] for line in lines if line["recipe"] == BASE}
    of_recipe = defaultdict(list)
    for line in lines:
        if line["recipe"] not in (BASE, STILL):
            of_recipe[line["recipe"]].append(line)
    found = {}
    for name, runs in of_recipe.items():
        seeds = [run["seed"] for run in runs]
        row: dict[str, Any] = {
            "runs": len(runs),
            "steps": sum(run["steps"] for run in runs) / len(runs),
            "seconds_a_step": sum(run["seconds"] / run["steps"] for run in runs) / len(runs),
            "peak_bytes": max(run["peak_bytes"] for run in runs),
            "spread": {},
        }
        for metric in measured(lines):
            before = averaged([base[seed][metric] for seed in seeds])
            after = averaged([run["values"][metric] for run in runs])
            row[metric] = paired_difference(before, after)
            means = [
                (sum(run["values"][metric]) - sum(base[run["seed"]][metric]))
                / len(run["values"][metric])
                for run in runs
            ]
            row["spread"][metric] = max(means) - min(means)
        found[name] = row
    return found


def measured(lines: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The metrics that these runs have."""
    return tuple(name for name in METRICS if all(name in line["values"] for line in lines))


def averaged(values: Sequence[Sequence[float]]) -> list[float]:
    """Mean over the seeds, prompt by prompt."""
    return [sum(of) / len(of) for of in zip(*values, strict=True)]


def table(lines: Sequence[dict[str, Any]]) -> str:
    """The differences as a Markdown table, best held-out judge first."""
    rows = sorted(differences(lines).items(), key=lambda item: -item[1]["clip_held_out"].mean)
    head = (
        "| recipe | held-out judge | oracle, points | HPS | motion, % | diversity, % | steps | "
        "seconds a step | peak GB |"
    )
    base = [line["values"] for line in lines if line["recipe"] == BASE]

    def share_of_base(metric: str) -> float:
        """Factor that makes a difference a percentage of the base's mean; 0 where it is missing."""
        if not all(metric in of for of in base):
            return 0.0
        return 100.0 / (sum(sum(of[metric]) / len(of[metric]) for of in base) / len(base))

    text = [head, "|" + "---|" * 9]
    for name, row in rows:
        cells = [f"`{name}`"]
        for metric, factor, digits in (
            ("clip_held_out", 1.0, 4),
            ("oracle", 100.0, 0),
            ("hps", 1.0, 4),
            ("motion", share_of_base("motion"), 0),
            ("diversity", share_of_base("diversity"), 0),
        ):
            if metric not in row:
                cells.append("")
                continue
            of = row[metric]
            low, mean, high = (f"{factor * v:+.{digits}f}" for v in (of.low, of.mean, of.high))
            cells.append(f"{mean} [{low}, {high}]")
        cells += [
            f"{row['steps']:.0f}",
            f"{row['seconds_a_step']:.1f}",
            f"{row['peak_bytes'] / 1e9:.1f}",
        ]
        text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text) + "\n"


def draw(lines: Sequence[dict[str, Any]], path: Path, window: int = 12) -> None:
    """What training gained in reward against seconds, mean over the seeds.

    The prompts of one step are harder than those of another. The arm `STILL` met the same prompts
    and noise and learnt nothing: its reward is taken off step by step, and what is left begins at 0
    in each run, for methods read the end of a clip in different ways.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import numpy as np

    still = {
        line["seed"]: np.asarray(line["curve"])[:, 1] for line in lines if line["recipe"] == STILL
    }
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    of_recipe = defaultdict(list)
    for line in lines:
        # Another reward has another scale, and no place in this picture.
        if line["recipe"] not in (BASE, STILL, *OTHER_REWARDS) and line["seed"] in still:
            of_recipe[line["recipe"]].append(line)
    for number, (name, runs) in enumerate(sorted(of_recipe.items())):
        ends = [min(len(run["curve"]), len(still[run["seed"]])) for run in runs]
        last = min(run["curve"][end - 1][0] for run, end in zip(runs, ends, strict=True))
        grid = np.linspace(0.0, last, 100)
        smooth = []
        for run, end in zip(runs, ends, strict=True):
            curve = np.asarray(run["curve"])[:end]
            gained = curve[:, 1] - still[run["seed"]][:end]
            gained = gained - gained[:UNMOVED].mean()
            means = [gained[max(0, i - window + 1) : i + 1].mean() for i in range(end)]
            smooth.append(np.interp(grid, curve[:, 0], means))
        style = ("-", "--", ":")[number // 10 % 3]
        label = name.removeprefix("tiny-").removesuffix("-hps")
        axes.plot(grid, np.mean(smooth, axis=0), style, label=label)
    axes.set_xlabel("seconds of training")
    axes.set_ylabel(f"HPS gained on the training clips, mean of {window} steps")
    axes.legend(ncols=2, fontsize="small")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the methods at equal time.")
    parser.add_argument("--recipes", nargs="*", default=list(RECIPES))
    parser.add_argument(
        "--arm", nargs="+", action="append", default=[], metavar=("LABEL RECIPE", "KEY=VALUE")
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=150.0, help="of optimiser steps, each run")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--clips", type=int, default=2, help="of each prompt")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-methods.jsonl"))
    parser.add_argument("--one", type=int, metavar="SEED", help="the arm alone, to stdout")
    parser.add_argument("--report", type=Path, nargs="+", help="table and picture of these files")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    if arguments.report:
        lines = [line for path in arguments.report for line in read(path)]
        text = table(lines)
        print(text)
        if arguments.table:
            arguments.table.write_text(text, encoding="utf-8")
        if arguments.picture:
            draw(lines, arguments.picture)
    elif arguments.one is not None:
        ((label, name, *overrides),) = arguments.arm
        made = one_run(label, name, overrides, arguments.one, settings_of(arguments))
        print(json.dumps(made))
    else:
        all_runs(arguments)


if __name__ == "__main__":
    main()
