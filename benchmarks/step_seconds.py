"""Processor seconds of an optimiser step in several checkouts, by turns.

    python -m benchmarks.step_seconds --arm LABEL TREE RECIPE [KEY=VALUE ...] [--arm ...]
                                      [--turns 5] [--updates 6]

TREE is a checkout of this project, such as a git worktree of an older commit; its own code runs, in
this interpreter. In each turn every arm trains in a process of its own, on one thread, one after
the other, so that what else the machine does meets all of them alike. The first updates of a
process are not counted (texts are encoded, moments are made). Prints the median over the turns of
the mean seconds of an update, the ratio to the first arm, turn by turn, and the peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.machine import machine

WARM_UP = 2
CHILD = """
import json, resource, sys
from benchmarks.trainee import Trainee
name, overrides, warm_up, updates = json.loads(sys.argv[1])
trainee = Trainee(name, overrides, seed=0, clock="process", prompts=2)
for _ in range(warm_up):
    trainee.step()
before = trainee.seconds
for _ in range(updates):
    trainee.step()
peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([(trainee.seconds - before) / updates, peak]))
"""


def measure(tree: Path, name: str, overrides: list[str], updates: int) -> tuple[float, int]:
    """Mean processor seconds of an update, and peak bytes of the process."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps([name, overrides, WARM_UP, updates])],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds of an update in several checkouts.")
    parser.add_argument(
        "--arm", nargs="+", action="append", required=True, metavar=("LABEL TREE", "RECIPE")
    )
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--updates", type=int, default=6, help="that are counted, of each turn")
    arguments = parser.parse_args()
    seconds: dict[str, list[float]] = {arm[0]: [] for arm in arguments.arm}
    peaks = dict.fromkeys(seconds, 0)
    for _ in range(arguments.turns):
        for label, tree, name, *overrides in arguments.arm:
            took, peak = measure(Path(tree).resolve(), name, overrides, arguments.updates)
            seconds[label].append(took)
            peaks[label] = max(peaks[label], peak)
            print(f"{label}: {took:.3f} s", file=sys.stderr, flush=True)
    first = seconds[arguments.arm[0][0]]
    report = {
        label: {
            "seconds": statistics.median(of),
            "ratio": statistics.median(a / b for a, b in zip(of, first, strict=True)),
            "peak_gb": peaks[label] / 1e9,
        }
        for label, of in seconds.items()
    }
    print(json.dumps({"machine": machine(), "arms": report}, indent=2))


if __name__ == "__main__":
    main()
