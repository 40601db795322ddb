"""finetune: what it refuses before it loads, its result, and the hint after a stop."""

import json
import signal
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from reward_tuning.cli.stopping import Stopped
from tests.reward_tuning.command_line import Command, command

run = pytest.fixture(command, name="run")
RESULT: dict[str, Any] = {
    "steps": 8,
    "clips": 4,
    "epochs": 2.0,
    "broken": ["a.mp4"],
    "base": {"loss": 1.0},
    "tuned": {"loss": 0.75},
}


@pytest.fixture
def arguments(run: Command, tmp_path: Path) -> list[str]:
    assert run("render", tmp_path / "clips", "--count", 1).code == 0
    metadata = f"data.metadata={tmp_path / 'clips' / 'metadata.csv'}"
    return ["finetune", "finetune/tiny-lora", metadata, f"output={tmp_path / 'run'}"]


def install(monkeypatch: pytest.MonkeyPatch, stop: bool) -> list[tuple[Any, bool]]:
    """Put a trainer in place of the one that trains for minutes; return the list of its calls."""
    calls = []
    module = ModuleType("reward_tuning.finetune.trainer")

    def finetune(recipe: Any, *, resume: bool, progress: Any) -> SimpleNamespace:
        calls.append((recipe, resume))
        (Path(recipe.output) / "lora").mkdir(parents=True)
        (Path(recipe.output) / "recipe.yaml").touch()
        if stop:
            raise Stopped(signal.SIGINT)
        return SimpleNamespace(evaluation=RESULT)

    module.finetune = finetune  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reward_tuning.finetune.trainer", module)
    return calls


def test_the_result(
    run: Command, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = install(monkeypatch, stop=False)
    done = run(*arguments, "train.steps=8")
    assert done.code == 0, done.err
    ((recipe, resume),) = calls
    assert (recipe.train.steps, resume) == (8, False)
    assert done.out.splitlines() == [
        "8 steps on 4 clips, 2.0 epochs; 1 files could not be used",
        "loss on the held-out clips: 1.0000 before, 0.7500 after (-25.0%)",
        f"lora:          {tmp_path / 'run' / 'lora'}",
    ]


def test_the_result_as_json(
    run: Command, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, stop=False)
    found = json.loads(run(*arguments, "--json").out)
    places = {"lora": str(tmp_path / "run" / "lora")}
    assert found == {"run": str(tmp_path / "run"), **RESULT, "places": places}


def test_a_stop_says_how_to_resume(
    run: Command, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, stop=True)
    done = run(*arguments)
    assert done.code == 130
    hint = f"resume with: reward-tuning resume {tmp_path / 'run'}"
    assert done.err.endswith(f"stopped by Ctrl-C; {hint}\n")


def test_a_folder_with_a_run_is_refused(
    run: Command, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = install(monkeypatch, stop=False)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").touch()
    done = run(*arguments)
    assert (done.code, done.out, calls) == (2, "", [])
    assert "holds a run already" in done.err
