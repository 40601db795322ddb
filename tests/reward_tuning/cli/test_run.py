"""run and resume: what they hand to the trainer, what they tell, how they stop."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reward_tuning.cli.display import Display, clock
from reward_tuning.progress import ProgressEvent
from reward_tuning.schema.loading import dump_recipe, load_recipe
from reward_tuning.schema.recipe import Recipe
from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.recipes_for_tests import write_recipe as write_any

run = pytest.fixture(command, name="run")


def write_recipe(folder: Path) -> Path:
    """The recipe with judges that are here: without them nothing begins."""
    judge = {"kind": "hps", "checkpoint": "tiny/hps.safetensors"}
    held_out = {"kind": "clip", "checkpoint": "tiny/clip.safetensors"}
    return write_any(folder, rewards=[judge], evaluation__held_out_rewards=[held_out])


EVALUATION = {
    "prompts": 32,
    "seeds": 2,
    "base": {"hps": 0.25, "clip_held_out": 0.3, "motion": 1.0},
    "tuned": {"hps": 0.29, "clip_held_out": 0.28, "motion": 1.01},
    "difference": {
        "hps": {"mean": 0.04, "low": 0.03, "high": 0.05},
        "clip_held_out": {"mean": -0.02, "low": -0.03, "high": -0.01},
        "motion": {"mean": 0.01, "low": -0.2, "high": 0.2},
    },
}


def finished(folder: Path, recipe: Recipe) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(dump_recipe(recipe))
    (folder / "evaluation.json").write_text(json.dumps(EVALUATION))
    (folder / "metrics.jsonl").touch()
    (folder / "lora").mkdir(exist_ok=True)


Calls = list[tuple[Recipe, bool]]
Trainer = Callable[[Callable[[Recipe], None]], Calls]


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """Puts a trainer in place that does what it is told; returns what it is called with."""

    def put(work: Callable[[Recipe], None]) -> Calls:
        calls: Calls = []
        module = ModuleType("reward_tuning.tuning.trainer")

        def run(recipe: Recipe, *, resume: bool, progress: Any) -> None:
            calls.append((recipe, resume))
            progress(ProgressEvent("training", 1, 4, "sweep", {"reward": 0.25}))
            work(recipe)

        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "reward_tuning.tuning.trainer", module)
        return calls

    return put


def test_run(run: Command, trainer: Trainer, tmp_path: Path) -> None:
    calls = trainer(lambda recipe: finished(Path(recipe.output), recipe))
    path = write_recipe(tmp_path)
    folder = tmp_path / "runs" / "b"
    done = run("run", path, f"output={folder}", "train.steps=6")
    assert done.code == 0
    assert calls == [(load_recipe(path, [f"output={folder}", "train.steps=6"]), False)]
    assert done.err == "training 1/4  sweep  reward 0.25\n"
    rows = {line.split()[0]: line for line in done.out.splitlines() if line.strip()}
    words = ["hps", "0.2500", "0.2900", "+0.0400", "+0.0300", "to", "+0.0500", "higher"]
    assert rows["hps"].split() == words
    table = done.out.partition("\nlora:")[0]  # paths may be as long as they are
    assert max(len(line) for line in table.splitlines()) <= 80
    assert rows["clip_held_out"].split()[-1] == "lower"
    assert rows["motion"].endswith("no change seen")
    assert rows["lora:"].split()[1] == str(folder / "lora")
    assert rows["metrics:"].split()[1] == str(folder / "metrics.jsonl")
    assert "report:" not in rows


def test_run_json(run: Command, trainer: Trainer, tmp_path: Path) -> None:
    trainer(lambda recipe: finished(Path(recipe.output), recipe))
    folder = tmp_path / "b"
    done = run("run", write_recipe(tmp_path), f"output={folder}", "--json")
    found = json.loads(done.out)
    assert found["run"] == str(folder)
    assert found["evaluation"] == EVALUATION
    assert found["places"]["lora"] == str(folder / "lora")


def test_run_refuses_a_folder_with_a_run(run: Command, trainer: Trainer, tmp_path: Path) -> None:
    calls = trainer(lambda recipe: None)
    path = write_recipe(tmp_path)
    done = run("run", path, f"output={tmp_path}")  # the recipe itself lies there
    assert done.code == 2
    assert f"reward-tuning resume {tmp_path}" in done.err
    assert calls == []


def test_run_checks_before_it_trains(run: Command, trainer: Trainer, tmp_path: Path) -> None:
    calls = trainer(lambda recipe: None)
    path = write_recipe(tmp_path)
    (tmp_path / "train.txt").write_text("\n")
    done = run("run", path, f"output={tmp_path / 'b'}")
    assert done.code == 2
    assert "holds no prompt" in done.err
    assert calls == []
    assert not (tmp_path / "b").exists()


def test_resume_goes_on_where_the_folder_is_now(
    run: Command, trainer: Trainer, tmp_path: Path
) -> None:
    calls = trainer(lambda recipe: finished(Path(recipe.output), recipe))
    recipe = load_recipe(write_recipe(tmp_path), ["output=somewhere/else"])
    folder = tmp_path / "moved"
    finished(folder, recipe)
    done = run("resume", folder)
    assert done.code == 0
    assert calls == [(recipe.model_copy(update={"output": str(folder)}), True)]
    assert "+0.04" in done.out


def test_resume_of_no_run(run: Command, tmp_path: Path) -> None:
    done = run("resume", tmp_path)
    assert done.code == 2
    assert f"{tmp_path} is not a run folder" in done.err


def test_run_without_evaluation(run: Command, trainer: Trainer, tmp_path: Path) -> None:
    trainer(lambda recipe: None)
    done = run("run", write_recipe(tmp_path), f"output={tmp_path / 'b'}")
    assert done.code == 2
    assert "has no evaluation.json" in done.err


# --- stopping

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


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")
def test_a_stop_that_python_swallowed_still_stops(tmp_path: Path) -> None:
    arguments = ["run", str(write_recipe(tmp_path)), f"output={tmp_path / 'b'}"]
    done = in_process(SWALLOWED, arguments)
    assert done.returncode == 130
    assert "never stopped" not in done.stdout
    assert done.stderr.endswith("stopped by Ctrl-C; nothing was started yet\n")


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as POSIX has them")
@pytest.mark.parametrize(("name", "said"), [("soft", "tidied\nall of it\n"), ("hard", "tidied\n")])
def test_an_echo_changes_nothing_and_impatience_leaves_at_once(
    tmp_path: Path, name: str, said: str
) -> None:
    arguments = ["run", str(write_recipe(tmp_path)), f"output={tmp_path / name}"]
    done = in_process(TWICE, arguments)
    assert (done.returncode, done.stdout) == (143, said)


def test_handlers_are_put_back(run: Command) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run("ls")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


# --- progress


def events(*done: int) -> list[ProgressEvent]:
    return [ProgressEvent("training", unit, 10, "rollout", {"reward": 0.5}) for unit in done]


def test_plain_display_tells_now_and_then() -> None:
    stream, seconds = io.StringIO(), iter([0.0, 4.0, 12.0, 13.0, 40.0])
    with Display(stream, lambda: next(seconds)) as display:
        for event in events(0, 1, 3, 4, 10):
            display(event)
    assert stream.getvalue().splitlines() == [
        "training 0/10  rollout  reward 0.5",
        "training 3/10  rollout  reward 0.5  0:28 left",  # 12 s for 3, so 28 s for 7
        "training 10/10  rollout  reward 0.5",
    ]


def test_seconds_left_of_a_resumed_run() -> None:
    stream, seconds = io.StringIO(), iter([0.0, 20.0])
    with Display(stream, lambda: next(seconds)) as display:
        for event in events(6, 8):
            display(event)
    assert stream.getvalue().splitlines()[-1].endswith("0:20 left")  # 10 s each, not 2.5 s


def test_a_new_stage_is_told_at_once() -> None:
    stream, seconds = io.StringIO(), iter([0.0, 0.1])
    with Display(stream, lambda: next(seconds)) as display:
        display(ProgressEvent("text states"))
        display(ProgressEvent("evaluation", 0, 3))
    assert stream.getvalue() == "text states\nevaluation 0/3\n"


def test_terminal_display_is_alive() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Display(stream) as display:
        display(events(3)[0])
        time.sleep(0.6)
    assert "training 3/10" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (65.4, "1:05"), (3599.7, "1:00:00"), (36061, "10:01:01")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
