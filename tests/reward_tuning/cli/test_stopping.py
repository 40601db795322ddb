"""Ctrl-C and SIGTERM: exit code, hint, every `finally`, echoes and impatience."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reward_tuning.cli.fake_trainer import (
    Trainer,
    write_recipe,
)
from tests.reward_tuning.cli.fake_trainer import (
    trainer as fake_trainer,
)
from tests.reward_tuning.command_line import Command, command

run = pytest.fixture(command, name="run")
trainer = pytest.fixture(fake_trainer, name="trainer")
STOPPED = """
import sys, time
from pathlib import Path
from types import ModuleType

module = ModuleType("reward_tuning.tuning.trainer")

def run(recipe, *, resume, progress):
    folder = Path(recipe.output)
    folder.mkdir()
    (folder / "recipe.yaml").touch()
    try:
        print("ready", flush=True)
        while True:
            time.sleep(0.01)
    finally:
        (folder / "tidy").touch()

module.run = run
sys.modules["reward_tuning.tuning.trainer"] = module
from reward_tuning.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")
@pytest.mark.parametrize(
    ("number", "code", "name"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")]
)
def test_stopped(tmp_path: Path, number: signal.Signals, code: int, name: str) -> None:
    folder = tmp_path / "b"
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, "run", str(write_recipe(tmp_path)), f"output={folder}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    assert err.strip() == f"stopped by {name}; resume with: reward-tuning resume {folder}"
    assert (folder / "tidy").exists()  # every finally ran


def test_stopped_before_anything_was_kept(run: Command, trainer: Trainer, tmp_path: Path) -> None:
    trainer(lambda recipe: signal.raise_signal(signal.SIGTERM))
    done = run("run", write_recipe(tmp_path), f"output={tmp_path / 'b'}")
    assert done.code == 143
    assert done.err.endswith("stopped by SIGTERM; nothing was started yet\n")


SWALLOWED = """
import os, signal, sys, types
from reward_tuning.progress import ProgressEvent

class Hook:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):  # the handler's exception is raised, printed and dropped in here
            pass

def run(recipe, *, resume, progress):
    hook = Hook()
    del hook
    for step in range(1000):
        progress(ProgressEvent("training", step, 1000))
    print("never stopped", flush=True)

module = types.ModuleType("reward_tuning.tuning.trainer")
module.run = run
sys.modules["reward_tuning.tuning.trainer"] = module
from reward_tuning.cli import script
script()
"""


TWICE = """
import os, signal, sys, time, types

def run(recipe, *, resume, progress):
    try:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # an echo
            time.sleep(0.2)
            print("tidied", flush=True)
    finally:
        time.sleep(1.2)
        if "hard" in recipe.output:
            os.kill(os.getpid(), signal.SIGTERM)  # impatience
            time.sleep(0.2)
        print("all of it", flush=True)

module = types.ModuleType("reward_tuning.tuning.trainer")
module.run = run
sys.modules["reward_tuning.tuning.trainer"] = module
from reward_tuning.cli import script
script()
"""


def in_process(code: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the code in an interpreter of its own, to its end."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")
def test_a_stop_that_python_swallowed_still_stops(tmp_path: Path) -> None:
    arguments = ["run", str(write_recipe(tmp_path)), f"output={tmp_path / 'b'}"]
    done = in_process(SWALLOWED, arguments)
    assert done.returncode == 130
    assert "never stopped" not in done.stdout
    assert done.stderr.endswith("stopped by Ctrl-C; nothing was started yet\n")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")
@pytest.mark.parametrize(("name", "said"), [("soft", "tidied\nall of it\n"), ("hard", "tidied\n")])
def test_an_echo_changes_nothing_and_impatience_leaves_at_once(
    tmp_path: Path, name: str, said: str
) -> None:
    arguments = ["run", str(write_recipe(tmp_path)), f"output={tmp_path / name}"]
    done = in_process(TWICE, arguments)
    assert (done.returncode, done.stdout) == (143, said)


STEPS = """
import os, signal, sys, time, types
from reward_tuning.runs.control import RunStopped
from reward_tuning.runs.signals import WAITING, signals_wait

def run(recipe, *, resume, progress):
    with signals_wait(tells=True):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # an echo, at once: a late one would be impatience
        time.sleep(1.2)
        print("the phase is done", flush=True)
        if "hard" in recipe.output:
            os.kill(os.getpid(), signal.SIGTERM)  # impatience
            time.sleep(0.2)
        print("saved", flush=True)
        raise RunStopped("stopped after step 3", WAITING.number)

module = types.ModuleType("reward_tuning.tuning.trainer")
module.run = run
sys.modules["reward_tuning.tuning.trainer"] = module
from reward_tuning.cli import script
script()
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")
@pytest.mark.parametrize(
    ("name", "said", "last"),
    [
        ("soft", "the phase is done\nsaved\n", "stopped after step 3"),
        ("hard", "the phase is done\n", "a second signal stops at once"),
    ],
)
def test_steps_end_after_their_phase_and_at_once_after_a_second_signal(
    tmp_path: Path, name: str, said: str, last: str
) -> None:
    arguments = ["run", str(write_recipe(tmp_path)), f"output={tmp_path / name}"]
    done = in_process(STEPS, arguments)
    assert (done.returncode, done.stdout) == (143, said)
    assert done.stderr.rstrip().endswith(last)
    assert done.stderr.count("stopping after the current phase") == 1


def test_handlers_are_put_back(run: Command) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run("ls")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
