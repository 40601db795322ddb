"""Levers of speed at equal processor time, scored at the sampler that users have.

    python -m benchmarks.levers --arm LABEL RECIPE [KEY=VALUE ...] [--arm ...]
                                [--at 30 60 120 | --updates 40 80] [--seeds 0 1 2] [--steps 25]
                                [--prompts 128] [--clips 1] --output FILE.jsonl
    python -m benchmarks.levers --report FILE.jsonl ... [--reference LABEL] [--share 0.9]

Each arm trains a shipped recipe, with overrides, on one thread. At each of the processor seconds
`--at` (optimiser steps alone: loading, guards and evaluations are not counted), or after each
number of `--updates`, its adapter is scored on held-out prompts, at full guidance and `--steps`
steps, with the noise of the base's clips: two training judges (HPS, ImageReward), two judges that
no arm trains on (another CLIP, and PickScore), the oracle, motion, and with `--clips` of 2 or more
the diversity of a prompt's clips. Every finished run is one line of the output; runs whose line is
there are not made again. An `--arm` named `base` measures the generator untrained and is made by
itself. RECIPE may be `published:STRATEGY:K`, such as `published:tail:10`: EasyAnimate's own loop
(`published_loop.py`) with that strategy.

The report gives the change against the base at each point, averaged over the seeds prompt by
prompt with a 95 % interval over the prompts, and, with `--reference`, the processor seconds until
each arm reaches a share of the reference arm's last gain in HPS (linear between the points), as
a ratio to the reference's own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.contestants import COMMON, RECIPE, published_arm
from benchmarks.machine import machine
from benchmarks.methods import BASE, averaged, read
from benchmarks.published_loop import published_step
from benchmarks.trainee import Trainee
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from reward_tuning.statistics.bootstrap import Interval, paired_difference

METRICS = (
    "hps",
    "image_reward",
    "clip_held_out",
    "pickscore_held_out",
    "oracle",
    "motion",
    "diversity",
)
"""`diversity` is missing where each prompt has one clip."""
DECIDES = "hps"
HELD_OUT = (
    "[{kind: clip, checkpoint: tiny/clip-held-out.safetensors},"
    " {kind: pickscore, checkpoint: tiny/pickscore.safetensors}]"
)
SETTINGS = ("at", "updates", "steps", "prompts", "clips")

Line = dict[str, Any]
Settings = dict[str, Any]


def measuring_recipe(steps: int) -> Recipe:
    """The judges and the sampler that measure every arm."""
    overrides = [f"evaluation.held_out_rewards={HELD_OUT}", f"evaluation.steps={steps}"]
    return load_recipe("tiny-demo", overrides)


class Published(Trainee):
    """A training in the loop of the published script."""

    def update(self) -> dict[str, Any]:
        """Make one update."""
        return published_step(self.recipe, self.parts, self.state, self.accelerator)


def loop_of(name: str) -> tuple[type[Trainee], str, Sequence[str]]:
    """Return what trains an arm, its recipe, and the overrides that its loop needs."""
    kind, _, rest = name.partition(":")
    if kind != "published":
        return Trainee, name, ()
    strategy, _, count = rest.partition(":")
    return Published, RECIPE, (*COMMON, *published_arm(strategy, int(count or 1)).overrides)


def one_run(label: str, name: str, overrides: Sequence[str], seed: int, settings: Settings) -> Line:
    """Train an arm and measure it at every point.

    Returns:
        `arm`, `of`, `overrides`, `seed`, `points` (each with `steps`, `seconds`, `peak_bytes` and
        `values`, metric to one value a prompt), `settings`, `machine`.
    """
    kind, recipe, own = loop_of(name)
    trainee = kind(
        recipe,
        [*own, *overrides],
        seed=seed,
        clock="process",
        prompts=settings["prompts"],
        measuring=measuring_recipe(settings["steps"]),
    )
    base = label == BASE
    updates = settings["updates"]
    points = []
    for end in [0] if base else updates or settings["at"]:
        while (trainee.state.step if updates else trainee.seconds) < end:
            trainee.step()
        peak = trainee.peak_bytes
        values = trainee.measure(settings["clips"], base=base).values
        points.append(
            {
                "steps": trainee.state.step,
                "seconds": trainee.seconds,
                "peak_bytes": peak,
                "values": {
                    metric: list(values[metric].values()) for metric in METRICS if metric in values
                },
            }
        )
        print(f"{label}, seed {seed}: {trainee.seconds:.0f} s", file=sys.stderr, flush=True)
    return {
        "arm": label,
        "of": name,
        "overrides": list(overrides),
        "seed": seed,
        "points": points,
        "settings": settings,
        "machine": machine(),
    }


def all_runs(arguments: argparse.Namespace) -> None:
    """Make every run that is not in the output yet, each in a process of its own."""
    output: Path = arguments.output
    output.parent.mkdir(parents=True, exist_ok=True)
    lines = read(output) if output.exists() else []
    settings = settings_of(arguments)
    fixed = ("steps", "prompts", "clips")
    if any(line["settings"].get(key, 1) != settings[key] for line in lines for key in fixed):
        raise SystemExit(f"{output} holds runs of other settings; give another --output")
    done = {(line["arm"], line["seed"]) for line in lines}
    for seed in arguments.seeds:
        for arm in [[BASE, "tiny-demo"], *arguments.arm]:
            if (arm[0], seed) in done:
                continue
            command = [sys.executable, "-m", "benchmarks.levers", "--one", str(seed)]
            for name, value in settings.items():
                values = value if isinstance(value, list) else [value]
                command += [f"--{name}", *map(str, values)] if values else []
            made = subprocess.run(
                [*command, "--arm", *arm], stdout=subprocess.PIPE, text=True, check=True
            )
            with output.open("a", encoding="utf-8") as file:
                file.write(made.stdout.splitlines()[-1] + "\n")


def settings_of(arguments: argparse.Namespace) -> Settings:
    """The part of the command line that every run shares."""
    return {name: getattr(arguments, name) for name in SETTINGS}


def changes(lines: Sequence[Line]) -> dict[str, list[dict[str, Any]]]:
    """Change of each arm against the base at each point.

    The values of a prompt are averaged over the seeds first; the interval is over the prompts.

    Returns:
        Arm to a row for each point: `runs`, `steps`, `seconds`, `peak_bytes`, METRIC: Interval.
    """
    base = {line["seed"]: line["points"][0]["values"] for line in lines if line["arm"] == BASE}
    of_arm: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        if line["arm"] != BASE:
            of_arm[line["arm"]].append(line)
    found = {}
    for arm, runs in of_arm.items():
        rows = []
        for place in range(min(len(run["points"]) for run in runs)):
            points = [run["points"][place] for run in runs]
            row: dict[str, Any] = {
                "runs": len(runs),
                "steps": mean([point["steps"] for point in points]),
                "seconds": mean([point["seconds"] for point in points]),
                "peak_bytes": max(point["peak_bytes"] for point in points),
            }
            for metric in METRICS:
                if metric not in base[runs[0]["seed"]]:
                    continue
                before = averaged([base[run["seed"]][metric] for run in runs])
                after = averaged([point["values"][metric] for point in points])
                row[metric] = paired_difference(before, after)
            rows.append(row)
        found[arm] = rows
    return found


def seconds_to(rows: Sequence[Mapping[str, Any]], gain: float) -> float | None:
    """Seconds until the gain in HPS is reached, linear between points; None if it is not."""
    before = (0.0, 0.0)
    for row in rows:
        now = (row["seconds"], row[DECIDES].mean)
        if now[1] >= gain:
            share = (gain - before[1]) / (now[1] - before[1])
            return before[0] + share * (now[0] - before[0])
        before = now
    return None


def report(lines: Sequence[Line], reference: str | None, share: float) -> str:
    """The changes as Markdown, and the ratios to the reference."""
    found = changes(lines)
    text = [
        "| arm | seconds | steps | HPS | ImageReward | held-out judge | PickScore | oracle, points "
        "| motion | diversity | peak GB |",
        "|" + "---|" * 11,
    ]
    for arm, rows in found.items():
        for row in rows:
            cells = [arm, f"{row['seconds']:.0f}", f"{row['steps']:.0f}"]
            for metric, factor, digits in (
                ("hps", 1, 4),
                ("image_reward", 1, 3),
                ("clip_held_out", 1, 4),
                ("pickscore_held_out", 1, 3),
                ("oracle", 100, 0),
                ("motion", 1, 4),
                ("diversity", 1, 4),
            ):
                cells.append(interval_text(row[metric], factor, digits) if metric in row else "-")
            cells.append(f"{row['peak_bytes'] / 1e9:.2f}")
            text.append("| " + " | ".join(cells) + " |")
    if reference is not None:
        gain = share * found[reference][-1][DECIDES].mean
        own = seconds_to(found[reference], gain)
        assert own is not None
        text += ["", f"Seconds to {100 * share:.0f} % of {reference}'s last gain, {gain:+.5f} HPS:"]
        for arm, rows in found.items():
            seconds = seconds_to(rows, gain)
            reached = "not reached" if seconds is None else f"{seconds:.0f}"
            ratio = "" if seconds is None else f", ratio {seconds / own:.2f}"
            text.append(f"- {arm} ({rows[0]['runs']} seeds): {reached}{ratio}")
    return "\n".join(text) + "\n"


def interval_text(of: Interval, factor: float, digits: int) -> str:
    """A mean and its interval."""
    low, middle, high = (f"{factor * v:+.{digits}f}" for v in (of.low, of.mean, of.high))
    return f"{middle} [{low}, {high}]"


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare levers of speed at equal time.")
    parser.add_argument(
        "--arm", nargs="+", action="append", default=[], metavar=("LABEL RECIPE", "KEY=VALUE")
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--at", nargs="+", type=float, default=[30.0, 60.0, 120.0])
    parser.add_argument("--updates", nargs="+", type=int, default=[], help="in place of --at")
    parser.add_argument("--steps", type=int, default=25, help="of the sampler that is scored")
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--clips", type=int, default=1, help="of each prompt")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark-levers.jsonl"))
    parser.add_argument("--one", type=int, metavar="SEED", help="the arm alone, to stdout")
    parser.add_argument("--report", type=Path, nargs="+", help="print the table of these files")
    parser.add_argument("--reference", help="the arm whose last gain the others are to reach")
    parser.add_argument("--share", type=float, default=0.9, help="of that gain")
    arguments = parser.parse_args()
    if arguments.report:
        lines = [line for path in arguments.report for line in read(path)]
        print(report(lines, arguments.reference, arguments.share))
    elif arguments.one is not None:
        ((label, name, *overrides),) = arguments.arm
        made = one_run(label, name, overrides, arguments.one, settings_of(arguments))
        print(json.dumps(made))
    else:
        all_runs(arguments)


if __name__ == "__main__":
    main()
