"""Our engine against the loop of EasyAnimate's published reward script, in one process.

    python -m benchmarks.against_published_loop [--to-score] [--quick]

Same embedded model, adapter, prompts, noise, judge and 25 steps; the loop is `published_loop.py`,
and `tests/benchmarks` holds it to the script's golden gradients. Run it from the repository's root
on an idle machine: some 5 minutes on two cores, 25 with `--to-score`, 2 with `--quick`, which
measures less and proves nothing.

Prints one JSON object. At K = 1, 4, 10 and 25 active steps the arms are the script's `tail` in its
own loop (`published tail-K`), the same with each block recomputed in the backward pass, as its
command line has it (`checkpointed`), the same plan, guidance and frame on our engine (`ours
tail-K`: the gradient is the same, number by number) and the shipped recipe's method (`ours
drtune-K`: negative branch detached), also with 4 active steps in a call of the sweep, each of them
also with the graphs of its active steps kept from the rollout (`graphs kept`). All judge one frame
of 25 sampling steps.

- `memory`: peak bytes of one step, `saved` for backward and `allocated` (`peak_memory.py` says what
  they are), ours over theirs, and how they grow with K;
- `seconds`: median of a step, the arms by turns, on the wall and of the process, which leaves out
  what other processes take.

With `--to-score`, `to_score` (`score_race.py`): training time until a held-out score is reached, by
median over seeds. On a busy machine OMP_NUM_THREADS=1 and `--clock process` count the process's own
time.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from accelerate import Accelerator

from benchmarks.contestants import (
    Arm,
    Contestant,
    at_once,
    checkpointed,
    graphs_kept,
    published_arm,
    recipe_arm,
    same_gradient_arm,
)
from benchmarks.machine import machine
from benchmarks.peak_memory import peak_of
from benchmarks.score_race import Race, race
from benchmarks.trainee import CLOCKS

ACTIVE_STEPS = (1, 4, 10, 25)
QUICK_STEPS = (1, 10)

Values = dict[str, float]
"""Arm to a number; published arms first."""


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arms_of(k: int) -> list[Arm]:
    """Whole step graphs in both loops, and the published one as its command line has it."""
    published = published_arm("tail", k)
    same, ours = same_gradient_arm(k), recipe_arm(k)
    return [
        published,
        checkpointed(published),
        same,
        graphs_kept(same, k),
        ours,
        at_once(ours, 4),
        graphs_kept(ours, k),
        graphs_kept(at_once(ours, 4), k),
    ]


def measure_memory(ks: Sequence[int], accelerator: Accelerator) -> dict[str, Any]:
    """Peak bytes of a step by measure and K."""
    report: dict[str, Any] = {"saved": {}, "allocated": {}}
    for k in ks:
        tell(f"memory at K = {k}")
        peaks = {arm.name: peak_of(Contestant(arm, accelerator)) for arm in arms_of(k)}
        for measure, by_k in report.items():
            of = {name: float(getattr(peak, measure)) for name, peak in peaks.items()}
            by_k[str(k)] = {"bytes": of, "ours_over_published": ratios(of)}
    for by_k in report.values():
        by_k["last_K_over_first"] = growth(by_k[str(ks[0])]["bytes"], by_k[str(ks[-1])]["bytes"])
    return report


def measure_seconds(ks: Sequence[int], repeats: int, accelerator: Accelerator) -> dict[str, Any]:
    """Median seconds of a step by clock and K."""
    report: dict[str, Any] = {"repeats": repeats, "wall": {}, "process": {}}
    for k in ks:
        tell(f"seconds at K = {k}")
        field = [Contestant(arm, accelerator) for arm in arms_of(k)]
        for contestant in field:
            contestant.step()  # text features, moments of the optimiser
        wall, process = interleaved(field, repeats)
        for clock, of in (("wall", wall), ("process", process)):
            report[clock][str(k)] = {"seconds": of, "ours_over_published": ratios(of)}
    return report


def interleaved(field: Sequence[Contestant], repeats: int) -> tuple[Values, Values]:
    """Median seconds of each arm's step, on the wall and of the process."""
    wall: dict[str, list[float]] = {contestant.arm.name: [] for contestant in field}
    process: dict[str, list[float]] = {contestant.arm.name: [] for contestant in field}
    for turn in range(repeats):
        for place in range(len(field)):
            contestant = field[(place + turn) % len(field)]  # nobody is always the first
            began, began_process = time.perf_counter(), time.process_time()
            contestant.step()
            wall[contestant.arm.name].append(time.perf_counter() - began)
            process[contestant.arm.name].append(time.process_time() - began_process)
    medians = [{name: statistics.median(of) for name, of in by.items()} for by in (wall, process)]
    return medians[0], medians[1]


def ratios(values: Values) -> dict[str, Values]:
    """Each of our arms over each published one."""
    published = {name: value for name, value in values.items() if name.startswith("published")}
    return {
        name: {theirs: value / of for theirs, of in published.items()}
        for name, value in values.items()
        if name not in published
    }


def growth(first: Values, last: Values) -> Values:
    """Of each arm, in the same order, named without its K."""
    pairs = zip(first.items(), last.values(), strict=True)
    return {re.sub(r"-\d+", "", name): value / before for (name, before), value in pairs}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Our engine against the published loop.")
    parser.add_argument("--quick", action="store_true", help="two minutes; proves nothing")
    parser.add_argument(
        "--measure", nargs="*", choices=("memory", "seconds"), default=["memory", "seconds"]
    )
    parser.add_argument("--repeats", type=int, help="timed steps of each arm")
    parser.add_argument("--to-score", action="store_true", help="also time to a held-out score")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="of --to-score")
    parser.add_argument("--grid-seconds", type=float, help="training time of each arm and rate")
    parser.add_argument("--seconds-each", type=float, help="training time of the chosen, per seed")
    parser.add_argument("--points", type=int, help="evaluations in that time")
    parser.add_argument("--prompts", type=int, help="held-out prompts of each evaluation")
    parser.add_argument("--rates", type=float, nargs="+", help="learning rates, of both loops")
    parser.add_argument("--seeds", type=int, nargs="+", help="the first one tries the grid")
    arguments = parser.parse_args()
    usual: dict[str, Any] = {
        "repeats": 3,
        "grid_seconds": 40.0,
        "seconds_each": 90.0,
        "points": 3,
        "prompts": 24,
        "rates": [4e-4, 1e-3],
        "seeds": [0, 1, 2],
    }
    if arguments.quick:
        usual |= {"repeats": 2, "grid_seconds": 4.0, "seconds_each": 8.0, "points": 1}
        usual |= {"prompts": 4, "rates": [1e-3], "seeds": [0]}
    for name, value in usual.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    return arguments


def main() -> None:
    arguments = parse()
    accelerator = Accelerator()
    ks = QUICK_STEPS if arguments.quick else ACTIVE_STEPS
    report: dict[str, Any] = {"machine": machine(), "quick": arguments.quick}
    if "memory" in arguments.measure:
        report["memory"] = measure_memory(ks, accelerator)
    if "seconds" in arguments.measure:
        report["seconds"] = measure_seconds(ks, arguments.repeats, accelerator)
    if arguments.to_score:
        settings = Race(
            grid_seconds=arguments.grid_seconds,
            seconds=arguments.seconds_each,
            points=arguments.points,
            prompts=arguments.prompts,
            rates=tuple(arguments.rates),
            seeds=tuple(arguments.seeds),
            clock=arguments.clock,
        )
        report["to_score"] = race(settings, accelerator, tell)
    report["load_average_at_the_end"] = machine()["load_average"]
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
