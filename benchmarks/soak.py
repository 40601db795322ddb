"""A thousand steps with kills at random moments end in the bytes of an undisturbed run.

    python -m benchmarks.soak {tune,finetune} --output DIR [--steps 1000] [--kills 54] [--seed 0]

Trains twice through the command line, on a small recipe of the embedded generator: once left alone,
and once killed again and again (SIGKILL) at moments drawn from the seed: while it loads, trains,
writes, samples, evaluates and exports. Each kill is followed by `resume`. Then compares every file
of the two run folders, and the memory of the undisturbed process early and at the end. Ends with
code 1 where a file differs, litter is left, the kills were too few or the memory has grown.

Times differ between any two runs, so files of times are not compared: `machine.jsonl`,
`status.json`, `report.html`, `events.out.*`; of each row of `metrics.jsonl` and `guards.jsonl`,
`seconds` and `memory` are left out, and of `recipe.yaml` the line of the folder's own name.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.machine import machine

CLI = (sys.executable, "-m", "reward_tuning.cli")
TUNE = (
    "sampling.steps=3",
    "sampling.frames=5",
    "sampling.height=32",
    "sampling.width=32",
    "sampling.guidance_scale=1",
    "method={kind: drtune, active_steps: 1, early_stop: true}",
    "lora.rank=4",
    "lora.alpha=4",
    "train.batch_size=1",
    "train.checkpoint_every=5",
    "train.sample_every=100",
    "guards.every=100",
    # a rule that ends the training would end the soak
    "guards.held_out=warn",
    "evaluation.prompts=4",
    "evaluation.steps=2",
    "evaluation.clips=2",
)
FINETUNE = (
    "data.frames=5",
    "data.sides=[32]",
    "data.held_out=2",
    "lora.rank=4",
    "lora.alpha=4",
    "train.batch_size=2",
    "train.checkpoint_every=5",
    "train.sample_every=100",
    "samples.steps=2",
    "samples.guidance_scale=1",
)
RESULTS = {"tune": "evaluation.json", "finetune": "finetune.json"}
OF_TIMES = ("machine.jsonl", "status.json", "report.html", ".lock")
MOST_GROWTH = 0.02
AT_THE_START = 0.2
"""Share of the kills that come while the process starts and loads."""
AT_THE_END = 0.1
"""Share of the kills that come once the training is nearly done, and so meet the evaluation."""
ROWS = 20
"""Rows whose mean is the memory at a step: a random window of the clip makes single ones differ."""


@dataclass(frozen=True)
class Work:
    """A training as two command lines.

    Attributes:
        begin: Verb, recipe and overrides.
        folder: Its run folder.
        result: The file that it writes last.
        steps: Optimiser steps.
    """

    begin: Sequence[str]
    folder: Path
    result: str
    steps: int

    def command(self) -> list[str]:
        """Begin, or go on where the run has begun."""
        if (self.folder / "recipe.yaml").exists():
            return [*CLI, "resume", str(self.folder)]
        return [*CLI, *self.begin, f"output={self.folder}"]

    def done(self) -> int:
        """The last step in metrics.jsonl."""
        file = self.folder / "metrics.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return len(lines)

    def finished(self) -> bool:
        """Whether the result is there."""
        return (self.folder / self.result).exists()


@dataclass
class Clock:
    """Seconds of an undisturbed run: until its first row, for a step, and after its last row."""

    start: float
    step: float
    end: float


def undisturbed(work: Work) -> Clock:
    """Run to the end, and measure the parts."""
    began = time.monotonic()
    first = last = None
    with (work.folder.parent / "undisturbed.log").open("w") as log:
        process = subprocess.Popen(work.command(), stdout=log, stderr=log)
        while process.poll() is None:
            time.sleep(0.2)
            done = work.done()
            if first is None and done:
                first = time.monotonic()
            if last is None and done == work.steps:
                last = time.monotonic()
    if process.returncode:
        raise SystemExit(f"the undisturbed run failed, see {log.name}")
    ended = time.monotonic()
    first = first or ended
    last = last or ended
    return Clock(first - began, (last - first) / work.steps, ended - last)


def disturbed(work: Work, clock: Clock, kills: int, draw: random.Random) -> list[dict[str, Any]]:
    """Kill the run so many times, then let it end.

    Returns:
        One row for each kill: seconds that the process lived, steps written by then, its stage.
    """
    rows: list[dict[str, Any]] = []
    with (work.folder.parent / "disturbed.log").open("a") as log:
        while len(rows) < kills and not work.finished():
            left = kills - len(rows) - round(AT_THE_END * kills)
            rest = work.steps - work.done()
            began = time.monotonic()
            process = subprocess.Popen(work.command(), stdout=log, stderr=log)
            if left <= 0:
                seconds = draw.uniform(0.0, 2.0 * clock.start + clock.step * rest + clock.end)
            elif draw.random() < AT_THE_START:
                seconds = draw.uniform(0.0, clock.start)
            else:  # from the first event of the training on, whatever the load of the machine
                while process.poll() is None and stage(work, process.pid)["stage"] != "training":
                    time.sleep(0.1)
                share = 2.0 * clock.step * rest / (left + 1)
                seconds = time.monotonic() - began + draw.uniform(0.0, share)
            while process.poll() is None and time.monotonic() - began < seconds:
                # the load of the machine must not let it end before all kills have come
                if left > 0 and work.done() > work.steps - left:
                    break
                time.sleep(draw.uniform(0.01, 0.2))
            process.kill()
            code = process.wait()
            if code not in (0, -9):
                raise SystemExit(f"a resumed run failed with code {code}, see {log.name}")
            if code == -9:
                rows.append({"lived": time.monotonic() - began, "steps": work.done()})
                rows[-1] |= stage(work, process.pid)
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        if not work.finished():
            subprocess.run(work.command(), stdout=log, stderr=log, check=True)
    return rows


def stage(work: Work, pid: int) -> dict[str, Any]:
    """What the killed process did last, as its status.json says."""
    with contextlib.suppress(OSError):
        status = json.loads((work.folder / "status.json").read_text(encoding="utf-8"))
        if status["pid"] == pid:
            return {"stage": status["stage"], "phase": status["phase"]}
    return {"stage": "starting", "phase": ""}  # the file is of an earlier process, or of none


def content(path: Path) -> Any:
    """The bytes of a file, without times and the folder's own name."""
    if path.name in ("metrics.jsonl", "guards.jsonl"):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [{k: v for k, v in row.items() if k not in ("seconds", "memory")} for row in rows]
    if path.name == "recipe.yaml":
        lines = path.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if not line.startswith("output:")]
    return path.read_bytes()


def files_of(root: Path) -> dict[str, Path]:
    """The files to compare, by name."""
    return {
        path.relative_to(root).as_posix(): path
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in OF_TIMES and not path.name.startswith("events.out.")
    }


def differences(one: Path, two: Path) -> list[str]:
    """Names of files that are in one folder only, or whose contents differ."""
    a, b = files_of(one), files_of(two)
    only = [name for name in {**a, **b} if (name in a) != (name in b)]
    return only + [name for name in a if name in b and content(a[name]) != content(b[name])]


def memory_at(folder: Path, step: int) -> float:
    """Resident bytes of the training process: mean of the largest of each row up to the step."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [max(row["memory"].values()) for row in rows if step - ROWS < row["step"] <= step]
    return sum(last) / len(last)


def begin(kind: str, steps: int, place: Path) -> list[str]:
    """Verb, recipe and overrides of a kind of training."""
    if kind == "tune":
        return ["run", "tiny-drtune-hps", *TUNE, f"train.steps={steps}"]
    clips = place / "clips"
    if not clips.exists():
        words = [*CLI, "render", str(clips), "--count", "10", "--style", "negative"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    where = (f"data.metadata={clips / 'metadata.csv'}", f"data.cache={clips / 'cache'}")
    return ["finetune", "finetune/tiny-lora", *FINETUNE, *where, f"train.steps={steps}"]


def main() -> None:
    parser = argparse.ArgumentParser(description="A long run with kills at random moments.")
    parser.add_argument("kind", choices=RESULTS)
    parser.add_argument("--output", type=Path, required=True, help="folder that is not there yet")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=54)
    parser.add_argument("--least", type=int, default=50, help="kills without which it fails")
    parser.add_argument("--early", type=int, default=100, help="step to compare the memory with")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    steps, result = arguments.steps, RESULTS[arguments.kind]
    words = begin(arguments.kind, steps, arguments.output)
    alone = Work(words, arguments.output / "undisturbed", result, steps)
    killed = Work(words, arguments.output / "disturbed", result, steps)
    clock = undisturbed(alone)
    rows = disturbed(killed, clock, arguments.kills, random.Random(arguments.seed))
    differing = differences(alone.folder, killed.folder)
    early, late = (memory_at(alone.folder, step) for step in (arguments.early, steps))
    growth = late / early - 1
    kinds = sorted({row["stage"] for row in rows})
    log = (arguments.output / "disturbed.log").read_text(encoding="utf-8")
    report = {
        "machine": machine(),
        "kind": arguments.kind,
        "steps": steps,
        "seed": arguments.seed,
        "kills": len(rows),
        "kills_by_stage": {kind: sum(row["stage"] == kind for row in rows) for kind in kinds},
        "files_compared": len(files_of(alone.folder)),
        "differing": differing,
        "damaged_checkpoints": log.count("is damaged"),
        "memory": {f"step {arguments.early}": early, f"step {steps}": late, "growth": growth},
        "seconds": vars(clock),
    }
    (arguments.output / "report.json").write_text(json.dumps(report, indent=2))
    print(json.dumps(report, indent=2))
    sound = not differing and len(rows) >= arguments.least and growth <= MOST_GROWTH
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
