"""Orders to a run: files that it reads after each step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from reward_tuning.errors import TuningError
from reward_tuning.progress import ProgressEvent
from reward_tuning.runs.control import (
    ORDERS,
    SECONDS_BETWEEN_EVENTS,
    SECONDS_BETWEEN_LOOKS,
    Control,
    RunStopped,
    order_file,
)
from reward_tuning.runs.signals import keep_signal, signals_wait


def give(root: Path, order: str) -> Path:
    file = order_file(root, order)
    file.parent.mkdir(exist_ok=True)
    file.touch()
    return file


class Waiting:
    """A run that waits; `after` holds what happens after so many looks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.looks = 0
        self.events: list[ProgressEvent] = []
        self.release = 3
        self.control = Control(root, Accelerator(cpu=True), self.events.append, self.sleep)

    def sleep(self, seconds: float) -> None:
        assert seconds == SECONDS_BETWEEN_LOOKS
        self.looks += 1
        if self.looks == self.release:
            order_file(self.root, "pause").unlink()


def test_a_run_without_orders_goes_on(tmp_path: Path) -> None:
    run = Waiting(tmp_path)
    assert not run.control.wait_or_stop(3, 9)
    assert not run.control.sample()
    assert run.events == []


@pytest.mark.parametrize("order", ["stop", "sample"])
def test_an_order_is_taken_once(tmp_path: Path, order: str) -> None:
    control = Waiting(tmp_path).control
    for _ in range(2):
        file = give(tmp_path, order)
        assert control.sample() == (order == "sample")
        assert control.wait_or_stop(3, 9) == (order == "stop")
        assert not file.exists()
        assert not control.sample()
        assert not control.wait_or_stop(3, 9)


def test_a_pause_lasts_as_long_as_its_file(tmp_path: Path) -> None:
    run = Waiting(tmp_path)
    file = give(tmp_path, "pause")
    run.release = 2 + round(SECONDS_BETWEEN_EVENTS / SECONDS_BETWEEN_LOOKS)
    assert not run.control.wait_or_stop(3, 9)
    assert run.looks == run.release
    stages = [(event.stage, event.done, event.total) for event in run.events]
    assert stages == [("paused", 3, 9), ("paused", 3, 9), ("training", 3, 9)]  # one a minute
    assert run.events[0].note == f"paused after step 3; remove {file} to continue"
    assert run.events[1].note == ""
    assert run.events[2].note == "continuing after step 3"


def test_a_paused_run_can_be_stopped(tmp_path: Path) -> None:
    run = Waiting(tmp_path)
    give(tmp_path, "pause")
    give(tmp_path, "stop")
    assert run.control.wait_or_stop(3, 9)
    assert run.looks == 0


def test_a_signal_is_an_order_to_stop_also_while_the_run_waits(tmp_path: Path) -> None:
    run = Waiting(tmp_path)
    give(tmp_path, "pause")
    run.release = 99
    sleep = run.sleep

    def woken(seconds: float) -> None:
        sleep(seconds)
        if run.looks == 2:
            keep_signal(signal.SIGTERM, lambda: None)

    control = Control(tmp_path, Accelerator(cpu=True), run.events.append, woken)
    with signals_wait(tells=False):
        assert control.wait_or_stop(3, 9)
    assert run.looks == 2
    with pytest.raises(RunStopped) as stopped:
        control.leave(3, 9)
    assert str(stopped.value).startswith("stopped after step 3 of 9, as SIGTERM asked; resume")
    assert stopped.value.number == signal.SIGTERM


def test_leaving_tells_how_to_resume(tmp_path: Path) -> None:
    with pytest.raises(RunStopped) as stopped:
        Waiting(tmp_path).control.leave(3, 9)
    assert str(stopped.value) == (
        f"stopped after step 3 of 9, as {tmp_path / 'control/stop'} asked; "
        f"resume with: reward-tuning resume {tmp_path}"
    )


def test_orders_of_an_earlier_process_are_removed(tmp_path: Path) -> None:
    files = [give(tmp_path, order) for order in ORDERS]
    run = Waiting(tmp_path)
    run.control.clear()
    assert not any(file.exists() for file in files)
    run.control.clear()  # nothing there is no error
    (tmp_path / "control").rmdir()
    (tmp_path / "control").touch()
    run.control.clear()  # a file in place of the folder holds no orders


def test_an_order_that_cannot_be_removed_is_reported(tmp_path: Path) -> None:
    order_file(tmp_path, "stop").mkdir(parents=True)
    with pytest.raises(TuningError, match=r"control/stop cannot be removed: .*remove it yourself"):
        Waiting(tmp_path).control.wait_or_stop(3, 9)


PROCESS = """
import sys
from pathlib import Path
from accelerate import Accelerator
from reward_tuning.runs.control import Control, RunStopped, order_file
from reward_tuning.runs.launching import leave_processes
from reward_tuning.runs.signals import keep_signal, signals_wait

root, accelerator = Path(sys.argv[1]), Accelerator(cpu=True)
main = accelerator.is_main_process
assert accelerator.num_processes == 2
looks = []

def sleep(seconds):
    looks.append(seconds)
    if main and len(looks) == 3:
        order_file(root, "stop").touch()

control = Control(root if main else Path("/nowhere"), accelerator, print, sleep)
control.clear()
accelerator.wait_for_everyone()
first = control.wait_or_stop(1, 9)
accelerator.wait_for_everyone()
if main:
    order_file(root, "sample").touch()
sampled = control.sample(), control.sample()
accelerator.wait_for_everyone()
if main:
    order_file(root, "pause").touch()
stopped = control.wait_or_stop(2, 9)
seen = " ".join(map(str, (first, *sampled, stopped, len(looks))))
with signals_wait(tells=False):
    if not main:  # one process alone has received it
        keep_signal(15, lambda: None)
    seen += f" {control.wait_or_stop(3, 9)}"
    try:
        control.leave(3, 9)
    except RunStopped as left:
        seen += f" {left.number}"
(root / f"seen-{accelerator.process_index}").write_text(seen)
leave_processes()  # else the interpreter's end may abort, 5 times in 100
"""


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform == "win32" or torch.cuda.is_available(), reason="two processes on the CPU"
)
def test_all_processes_obey_together_though_one_alone_sees_the_files(tmp_path: Path) -> None:
    give(tmp_path, "stop")  # a stale one
    (tmp_path / "process.py").write_text(PROCESS)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"),
            *("--standalone", str(tmp_path / "process.py"), str(tmp_path)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"seen-{rank}").read_text() for rank in range(2)] == [
        "False True False True 3 True 15"
    ] * 2
