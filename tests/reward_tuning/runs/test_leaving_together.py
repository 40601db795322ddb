"""Two processes of which the main one closes a slow tracker: nobody leaves before it has."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from reward_tuning.errors import TuningError
from reward_tuning.progress import ProgressFn, silent
from reward_tuning.runs.checkpoints import checkpoint_steps, read_checkpoint
from reward_tuning.runs.control import order_file
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.frame import run_training
from reward_tuning.runs.metrics import MetricsLog
from reward_tuning.runs.out_of_memory import measuring
from reward_tuning.runs.status import read_status
from reward_tuning.runs.tensorboard import TensorBoard
from reward_tuning.runs.training_state import TrainingState
from reward_tuning.runs.undone import UndoneStep
from reward_tuning.schema.loading import load_recipe
from tests.reward_tuning.recipes_for_tests import write_recipe
from tests.reward_tuning.runs.test_frame import Toy

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or torch.cuda.is_available(), reason="runs are forked, on the CPU"
)
FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(["tests.reward_tuning.runs.test_leaving_together"])
SECONDS = 3.0
"""Time that the tracker takes to close."""
LEFT = 2


class Ending(Toy):
    """Ends in its second step as the test wants it."""

    wanted = ""

    def prepare(self, *, resume: bool) -> None:
        """Do not look for what the main process writes meanwhile."""

    def before(self, state: TrainingState, log: MetricsLog | None) -> None:
        """Do not ask for the main process's log."""

    def step(self, state: TrainingState) -> dict[str, Any]:
        main = self.accelerator.is_main_process
        if state.step == 1:
            match self.wanted:
                case "stop" if main:
                    order_file(self.folder.root, "stop").parent.mkdir()
                    order_file(self.folder.root, "stop").touch()
                case "undone":
                    raise UndoneStep("no judge")
                case "memory" if not main:
                    self.fails_in = "gradient"
                case "own error" if not main:
                    raise TuningError("of this process alone")
        row = super().step(state)
        if self.wanted == "guard":
            state.bad_in_a_row = 99
        return row

    def watch(self, state: TrainingState, row: Mapping[str, Any], log: MetricsLog | None) -> None:
        if self.wanted == "guards' memory" and state.step == 2:
            with measuring(self.accelerator):
                if not self.accelerator.is_main_process:
                    raise torch.OutOfMemoryError("tried in vain")


def slow_close(self: TensorBoard, *, finished: bool) -> None:
    time.sleep(SECONDS)
    (Path(self._writer.log_dir) / "closed").touch()


def train(place: Path, rank: int, port: int, wanted: str) -> None:
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
    Ending.wanted = wanted
    TensorBoard.close = slow_close  # type: ignore[method-assign]
    keys = [f"output={place / 'run'}", "train.steps=4", "tracking=[tensorboard]"]
    recipe = load_recipe(place / "recipe.yaml", keys)
    folder = RunFolder(recipe.output)

    def load(accelerator: Accelerator, report: ProgressFn) -> Ending:
        return Ending(recipe, folder, accelerator, report, {"pebbles": "sha256:1"})

    with (place / f"{rank}.txt").open("w") as said:
        os.dup2(said.fileno(), 2)
    try:
        run_training(folder, recipe, recipe.train, load, resume=False, progress=silent)
    except TuningError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(LEFT)
    os._exit(0)


def started(place: Path, wanted: str) -> list[ForkServerProcess]:
    write_recipe(place)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [FORK.Process(target=train, args=(place, rank, port, wanted)) for rank in range(2)]
    for process in processes:
        process.start()
    return processes


def ended(process: ForkServerProcess) -> int | None:
    process.join(60)
    return process.exitcode


def error_line(told: Path) -> str:
    (line,) = [one for one in told.read_text().splitlines() if one.startswith("error: ")]
    return line


WORDS: Mapping[str, str] = {
    "stop": "stopped after step 2 of 4",
    "undone": "no judge. Nothing is lost: continue with `torchrun --nproc_per_node 2 ",
    "memory": "out of memory on process 1 of 2 in the phase gradient of step 2: tried in vain",
    "guards' memory": "out of memory in training 2/4: process 1 of 2: tried in vain",
    "guard": "99 steps in a row",
}

SAVED: Mapping[str, list[int]] = {
    "stop": [2],
    "undone": [1],
    "memory": [1],
    "guards' memory": [2],
    "guard": [],  # a run that a guard ends is not resumed
}


@pytest.mark.parametrize("wanted", WORDS)
@pytest.mark.slow
def test_no_process_leaves_before_trackers_and_status_are_closed(
    tmp_path: Path, wanted: str
) -> None:
    main, other = processes = started(tmp_path, wanted)
    try:
        assert ended(other) == LEFT
        # A launcher ends the main process from now on.
        assert (tmp_path / "run" / "closed").exists()
        status = read_status(tmp_path / "run")
        assert status is not None
        assert status["state"] == ("stopped" if wanted == "stop" else "failed")
        assert ended(main) == LEFT
    finally:
        for process in processes:
            process.kill()
    for rank in range(2):
        assert f"error: {WORDS[wanted]}" in (tmp_path / f"{rank}.txt").read_text()
    checkpoints = tmp_path / "run" / "checkpoints"
    assert checkpoint_steps(checkpoints) == SAVED[wanted]
    for step in SAVED[wanted]:
        left = read_checkpoint(checkpoints / f"step-{step:06d}").left
        assert (left is not None and left["written"]) == (wanted == "guards' memory")


def test_an_error_of_one_process_alone_is_not_waited_for(tmp_path: Path) -> None:
    main, other = processes = started(tmp_path, "own error")
    try:
        assert ended(other) == LEFT
        began = time.monotonic()
        assert not (tmp_path / "run" / "closed").exists()
        assert ended(main) == LEFT
        assert time.monotonic() - began < 15  # 10, and those of a busy machine
    finally:
        for process in processes:
            process.kill()
    line = error_line(tmp_path / "0.txt")
    assert line.startswith("error: process 1 of 2 has ended")
    command = f"torchrun --nproc_per_node 2 -m reward_tuning.cli resume {tmp_path / 'run'}"
    assert line.endswith(f"Resume with: {command}")


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_while_the_tracker_closes_ends_the_other(
    tmp_path: Path, victim: int
) -> None:
    processes = started(tmp_path, "undone")
    try:
        deadline = time.monotonic() + 60
        while not list((tmp_path / "run" / "checkpoints").glob("step-000001")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.5)
        assert all(process.is_alive() for process in processes)
        os.kill(processes[victim].pid or 0, signal.SIGKILL)
        began = time.monotonic()
        assert ended(processes[1 - victim]) == LEFT
        assert time.monotonic() - began < 15  # 10, and those of a busy machine
    finally:
        for process in processes:
            process.kill()
    line = error_line(tmp_path / f"{1 - victim}.txt")
    assert line.startswith(f"error: process {victim} of 2 has ended")
    assert line.endswith(f"resume {tmp_path / 'run'}")
