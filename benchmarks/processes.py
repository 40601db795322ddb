"""Several processes against one with the same clips in each step: how far are their adapters apart?

    python -m benchmarks.processes [--arms drtune finetune ...] [--processes 2 4] [--steps 3]
                                   [--sharded] [--double]

Each arm trains a random network of 7B style with small judges. N processes draw one clip a
batch and accumulate 2 batches; the one process that they are compared with draws N clips a batch
and accumulates as often: the same clips, with the same plans. (The batches of a fine-tuning have
one shape and draws of their own, so there the one process accumulates N times as often.) With
`--sharded` the N processes share the weights of the blocks, too (`generator.memory: sharded`), and
with `--double` everything is computed in float64.

The distance is that of the trained tensors after the last step: `learnt` of the up factors, which
begin at 0, relative to what the one process has learnt; `adapter` of all tensors, relative to their
norm. `accumulated` is the distance (`learnt`) of one process that accumulates N times as often in
place of larger batches: each of its batches draws a plan of its own.

Needs no GPU, and about 5 minutes of two idle cores.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.machine import machine

Verb = Literal["run", "finetune", "distil"]

PROPORTIONAL = ("train.learning_rate=1.0", "train.adam_eps=1.0")
"""Steps as long as gradients. With the default eps of 1e-10 AdamW makes a step of full length of a
gradient that is nothing but rounding."""
COMMON = ("train.warmup_steps=0", "train.ema_decay=null", "train.checkpoint_every=9")
TUNING = ("evaluation.prompts=2", "evaluation.seeds=1", "evaluation.batch_size=4")
OF_VERB: Mapping[Verb, tuple[str, ...]] = {
    "run": TUNING,
    "finetune": ("samples.count=0",),
    "distil": ("evaluation.prompts=2",),
}
ACCUMULATION = 2
WHOLE, SHARDED, ACCUMULATED = "whole", "sharded", "accumulated"


@dataclass(frozen=True)
class Arm:
    """A training that is made by one process and by several.

    Attributes:
        overrides: What differs from the small recipe.
        verb: What makes it.
    """

    overrides: tuple[str, ...] = ()
    verb: Verb = "run"

    def batches(self, processes: int) -> tuple[str, ...]:
        """Return the overrides of one process that draws what so many draw with one clip each."""
        return _batches(1, processes) if self.verb == "finetune" else _batches(processes, 1)


def _batches(size: int, times: int) -> tuple[str, ...]:
    return f"train.batch_size={size}", f"train.gradient_accumulation={ACCUMULATION * times}"


DRTUNE = "method={kind: drtune, active_steps: 2}"
ARMS: Mapping[str, Arm] = {
    "drtune": Arm((DRTUNE,)),
    "draft_k": Arm(("method={kind: draft_k, active_steps: 2}",)),
    "leapalign": Arm(("method={kind: leapalign}",)),
    "direct_align": Arm(("method={kind: direct_align}",)),
    "replay": Arm((DRTUNE, "train.replay={weight: 0.5, clips: 4}")),
    # What a batch draws besides its plan: the judge's frames, and the steps that are anchored.
    "drawn": Arm(
        (
            DRTUNE,
            "train.anchor=0.5",
            "train.anchor_steps=1",
            "rewards.0.over_frames={kind: random, count: 1}",
        )
    ),
    "finetune": Arm(verb="finetune"),
    "distil": Arm(verb="distil"),
}


# --- one set of processes, which makes several trainings one after the other


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        recipe: File of the recipe.
        overrides: `key.sub=value`, with the output.
        verb: What makes it.
    """

    recipe: str
    overrides: tuple[str, ...]
    verb: Verb = "run"


def make(jobs: Sequence[Job]) -> None:
    """Make trainings, one after the other, as one of the processes that were started for them."""
    from reward_tuning.distil.recipe import load_distil_recipe
    from reward_tuning.distil.trainer import distil
    from reward_tuning.finetune.recipe import load_finetune_recipe
    from reward_tuning.finetune.trainer import finetune
    from reward_tuning.runs.launching import leave_processes
    from reward_tuning.schema.loading import load_recipe
    from reward_tuning.tuning.trainer import run

    for job in jobs:
        match job.verb:
            case "run":
                run(load_recipe(job.recipe, list(job.overrides)))
            case "finetune":
                finetune(load_finetune_recipe(job.recipe, list(job.overrides)))
            case "distil":
                distil(load_distil_recipe(job.recipe, list(job.overrides)))
    leave_processes()


def made_by(
    processes: int, jobs: Sequence[Job], *, double: bool = False, timeout: float = 3600.0
) -> None:
    """Make trainings in so many processes on the CPU, and wait for them.

    Args:
        processes: How many.
        jobs: The trainings, made one after the other.
        double: Compute in float64.
        timeout: Seconds for all of them.

    Raises:
        RuntimeError: A process failed; with the end of what it said.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {
        "ACCELERATE_USE_CPU": "true",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
    }
    content = json.dumps([asdict(job) for job in jobs])
    started = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.processes", "--make", content),
                *(["--double"] if double else []),
            ],
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                **(together if processes > 1 else {}),
                **({"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {}),
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    try:
        for process in started:
            _, said = process.communicate(timeout=timeout)
            if process.returncode:
                raise RuntimeError(f"exit code {process.returncode}: {said[-3000:]}")
    finally:
        for process in started:
            process.kill()
            process.wait()


# --- distances


def distance(one: Path, other: Path) -> dict[str, float]:
    """Return the distance of two runs' adapters: `learnt` and `adapter`."""
    a, b = (load_file(folder / "lora" / "adapter_model.safetensors") for folder in (one, other))
    assert a.keys() == b.keys()
    ups = [name for name in a if "lora_B" in name]
    return {"learnt": _relative(a, b, ups), "adapter": _relative(a, b, list(a))}


def _relative(a: Mapping[str, Tensor], b: Mapping[str, Tensor], names: Sequence[str]) -> float:
    gap = torch.stack([(a[name].double() - b[name].double()).norm() for name in names]).norm()
    size = torch.stack([a[name].double().norm() for name in names]).norm()
    assert float(size) > 0, "the adapter has learnt nothing"
    return float(gap / size)


# --- the table


class Comparison:
    """Trainings of one process and of several, in one folder.

    Args:
        folder: An empty folder.
        arms: Names in `ARMS`.
        steps: Updates of each training.
        double: Compute in float64.
        timeout: Seconds for all trainings of one set of processes.
    """

    def __init__(
        self,
        folder: Path,
        arms: Sequence[str],
        steps: int = 3,
        *,
        double: bool = False,
        timeout: float = 3600.0,
    ) -> None:
        from tests.reward_tuning.distil import few_steps
        from tests.reward_tuning.finetune import clip_folder
        from tests.reward_tuning.tiny_run import tiny_recipe, write_world

        self.folder, self.arms, self.steps = folder, list(arms), steps
        self._double, self._timeout = double, timeout
        world, clips = folder / "world", folder / "clips"
        verbs = {ARMS[arm].verb for arm in arms}
        if verbs & {"run", "distil"}:
            world.mkdir()
            tiny_recipe(write_world(world), folder)  # writes recipe.yaml
            few_steps.small_recipe(world, folder)
        if "finetune" in verbs:
            clips.mkdir()
            clip_folder.small_recipe(clip_folder.write_world_of_clips(clips), folder)
        self._recipes = {
            "run": world / "recipe.yaml",
            "distil": world / "distil.yaml",
            "finetune": clips / "recipe.yaml",
        }

    def one_process(self, stands_for: int) -> None:
        """Make every training in one process that draws as much as so many."""
        self._make(1, f"one-{stands_for}", lambda arm: arm.batches(stands_for))

    def accumulated(self, stands_for: int) -> None:
        """Make every training in one process that accumulates so many times as often."""
        self._make(1, f"{ACCUMULATED}-{stands_for}", lambda arm: _batches(1, stands_for))

    def processes(self, count: int, *, sharded: bool = False) -> None:
        """Make every training in so many processes, which may share the weights of the blocks."""
        overrides = ("generator.memory=sharded",) if sharded else ()
        name = f"{SHARDED if sharded else WHOLE}-{count}"
        self._make(count, name, lambda arm: _batches(1, 1), overrides)

    def distances(self, count: int, name: str) -> dict[str, dict[str, float]]:
        """Return each arm's distance between one process and the training of that name."""
        return {
            arm: distance(self.folder / f"{arm}-one-{count}", self.folder / f"{arm}-{name}-{count}")
            for arm in self.arms
        }

    def _make(
        self,
        processes: int,
        name: str,
        batches: Callable[[Arm], tuple[str, ...]],
        overrides: Sequence[str] = (),
    ) -> None:
        jobs = []
        for arm in self.arms:
            of = ARMS[arm]
            keys = (
                f"output={self.folder / f'{arm}-{name}'}",
                f"train.steps={self.steps}",
                *PROPORTIONAL,
                *COMMON,
                *OF_VERB[of.verb],
                *of.overrides,
                *batches(of),
                *overrides,
            )
            jobs.append(Job(str(self._recipes[of.verb]), keys, of.verb))
        made_by(processes, jobs, double=self._double, timeout=self._timeout)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--processes", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--sharded", action="store_true")
    parser.add_argument("--double", action="store_true")
    parser.add_argument("--make", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make is not None:
        from base_model.networks.corrections import upstream_projects_text
        from tests.reward_tuning.float64 import Float64

        upstream_projects_text()  # builds its own small network in float32
        with Float64() if arguments.double else nullcontext():
            make([Job(**values) for values in json.loads(arguments.make)])
        return
    with tempfile.TemporaryDirectory() as folder:
        compared = Comparison(
            Path(folder), arguments.arms, arguments.steps, double=arguments.double
        )
        for count in arguments.processes:
            compared.one_process(count)
            compared.processes(count, sharded=arguments.sharded)
            apart = {}
            if not arguments.sharded:  # which changes nothing in one process
                compared.accumulated(count)
                apart = compared.distances(count, ACCUMULATED)
            name = SHARDED if arguments.sharded else WHOLE
            for arm, found in compared.distances(count, name).items():
                row: dict[str, Any] = {"arm": arm, "processes": count, **found}
                if arm in apart:
                    row[ACCUMULATED] = apart[arm]["learnt"]
                print(json.dumps(row), flush=True)
    settings = {name: getattr(arguments, name) for name in ("steps", "sharded", "double")}
    print(json.dumps(settings | machine()))


if __name__ == "__main__":
    main()
