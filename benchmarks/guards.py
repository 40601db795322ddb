"""The default guards on a run pushed too far, and on the demo: when they act, and their cost.

    python -m benchmarks.guards [--arms pushed demo] [--seeds 0 1 2] [--output FOLDER]
    python -m benchmarks.guards --report FOLDER

`pushed` is that of benchmarks/overoptimisation.py, `demo` is `tiny-demo` with 120 updates at 4e-4;
both as `reward-tuning run` runs them, with the guards of the schema. A finished run is not run
again. The share of the guards is of the whole run, with loading and the evaluation at its end.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import machine
from benchmarks.overoptimisation import PUSHED, RECIPE
from reward_tuning.progress import ProgressEvent
from reward_tuning.schema.loading import load_recipe
from reward_tuning.tuning.guard_evaluation import STAGE
from reward_tuning.tuning.trainer import run

ARMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "pushed": (RECIPE, (*PUSHED, "train.steps=120")),
    "demo": ("tiny-demo", ("train.steps=120", "train.learning_rate=4.0e-4")),
}


class GuardClock:
    """Add up the time that passes in the stages of the guards.

    Attributes:
        seconds: Time so far, without the loading of the judges before an evaluation.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since: float | None = None

    def __call__(self, event: ProgressEvent) -> None:
        """Take in an event."""
        now, inside = time.perf_counter(), event.stage.startswith(STAGE)
        if self._since is not None:
            self.seconds += now - self._since
        self._since = now if inside else None


def one_run(arm: str, seed: int, output: Path) -> None:
    """Run an arm with a seed, and write its line."""
    recipe, overrides = ARMS[arm]
    folder = output / f"{arm}-{seed}"
    clock, began = GuardClock(), time.perf_counter()
    found = run(
        load_recipe(recipe, [*overrides, f"seed={seed}", f"output={folder}"]), progress=clock
    )
    lines = (folder / "guards.jsonl").read_text(encoding="utf-8").splitlines()
    line = {
        "arm": arm,
        "seed": seed,
        "seconds": time.perf_counter() - began,
        "guard_seconds": clock.seconds,
        "rows": [json.loads(text) for text in lines],
        "checkpoint": found.evaluation["checkpoint"],
        "difference": found.evaluation["difference"],
        "machine": machine(),
    }
    with (output / "runs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def read(output: Path) -> list[dict[str, Any]]:
    """The finished runs."""
    path = output / "runs.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def report(output: Path) -> None:
    """Print every evaluation, and every run, in Markdown."""
    lines = read(output)
    print("| run | seed | step | held-out judge | motion | diversity | drift | fires |")
    print("|" + "---|" * 8)
    for line in lines:
        for row in line["rows"]:
            judge = row["measures"]["clip_held_out"]
            fired = ", ".join(f"{one['rule']} ({one['action']})" for one in row["fired"])
            print(
                f"| {line['arm']} | {line['seed']} | {row['step']} "
                f"| {judge['mean']:+.3f} [{judge['low']:+.3f}, {judge['high']:+.3f}] "
                f"| {row['motion']:.2f} | {row['diversity']:.2f} | {row['drift']:.2f} "
                f"| {fired or '-'} |"
            )
    print("\n| run | seed | ends at | exported | held-out judge | guards, % of the time |")
    print("|" + "---|" * 6)
    for line in lines:
        chosen, judge = line["checkpoint"], line["difference"]["clip_held_out"]
        end = chosen["stopped_at"] or chosen["of"]
        share = 100 * line["guard_seconds"] / line["seconds"]
        print(
            f"| {line['arm']} | {line['seed']} | {end} of {chosen['of']} | step {chosen['step']} "
            f"| {judge['mean']:+.3f} [{judge['low']:+.3f}, {judge['high']:+.3f}] | {share:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="The default guards at work.")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("runs/guards"))
    parser.add_argument("--report", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    if arguments.report:
        report(arguments.report)
        return
    arguments.output.mkdir(parents=True, exist_ok=True)
    done = {(line["arm"], line["seed"]) for line in read(arguments.output)}
    for arm in arguments.arms:
        for seed in arguments.seeds:
            if (arm, seed) not in done:
                one_run(arm, seed, arguments.output)


if __name__ == "__main__":
    main()
