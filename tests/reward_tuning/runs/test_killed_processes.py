"""A process that is killed, in whichever phase, ends the others soon, with one line."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from reward_tuning.cli import main
from reward_tuning.progress import ProgressEvent
from reward_tuning.runs import frame
from tests.reward_tuning.tiny_run import tiny_recipe, write_world

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform == "win32" or torch.cuda.is_available(), reason="runs are forked, on the CPU"
    ),
]
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["tests.reward_tuning.runs.test_killed_processes"])
KEYS = (
    "train.steps=3",
    "train.checkpoint_every=1",
    "evaluation.prompts=2",
    "evaluation.seeds=1",
    "evaluation.steps=2",
)
MOST_SECONDS = 30.0
"""The others notice within 10 s; the rest is Python's own end, on a busy machine."""
PHASES: dict[str, tuple[int, Callable[[ProgressEvent], bool], tuple[str, ...]]] = {
    "rollout": (1, lambda e: (e.phase, e.done) == ("rollout", 1), ()),
    "reward": (1, lambda e: (e.phase, e.done) == ("reward", 1), ()),
    "sweep": (1, lambda e: (e.phase, e.done) == ("sweep", 1), ()),
    "sweep with shared weights": (
        1,
        lambda e: (e.phase, e.done) == ("sweep", 1),
        ("generator.memory=sharded",),
    ),
    "update": (1, lambda e: (e.phase, e.done) == ("update", 1), ()),
    "checkpoint": (0, lambda e: False, ()),
    "evaluation": (1, lambda e: e.stage == "evaluation of tuned", ()),
}
"""Who is killed, at which event, and the keys of the run."""


def die(*args: Any, **kwargs: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train(world: Path, output: Path, rank: int, port: int, phase: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE="2",
        LOCAL_WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        ACCELERATE_USE_CPU="true",
    )
    victim, at, keys = PHASES[phase]
    if rank == victim == 0:
        frame.save_state = die
    elif rank == victim:  # all but the main process tell their events to `silent`
        frame.silent = lambda event: die() if at(event) else None
    with (output.parent / f"{output.name}-{rank}.txt").open("w") as said:
        os.dup2(said.fileno(), 2)
    main(["run", str(world / "recipe.yaml"), f"output={output}", *KEYS, *keys])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARD_TUNING_CACHE", str(tmp_path_factory.mktemp("cache")))
        folder = write_world(tmp_path_factory.mktemp("world"))
        tiny_recipe(folder, folder / "unused")  # writes recipe.yaml
        yield folder


@pytest.mark.parametrize("phase", PHASES)
def test_the_others_end_soon_with_the_resume_command(
    world: Path, tmp_path: Path, phase: str
) -> None:
    output, victim = tmp_path / "run", PHASES[phase][0]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        FORK.Process(target=train, args=(world, output, rank, port, phase)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    try:
        processes[victim].join(240)
        assert processes[victim].exitcode == -signal.SIGKILL
        killed = time.monotonic()
        processes[1 - victim].join(60)
        assert time.monotonic() - killed < MOST_SECONDS
        assert processes[1 - victim].exitcode == 2
    finally:
        for process in processes:
            process.kill()
    told = (tmp_path / f"run-{1 - victim}.txt").read_text()
    assert "Traceback" not in told
    (line,) = [line for line in told.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: process {victim} of 2 has ended")
    command = f"torchrun --nproc_per_node 2 -m reward_tuning.cli resume {output}"
    assert line.endswith(f"Resume with: {command}")
