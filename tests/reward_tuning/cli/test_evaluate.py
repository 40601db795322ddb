"""`reward-tuning evaluate` as a user types it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from reward_tuning.cli.evaluate import (
    MeasureOptions,
    OutputOptions,
    SideOptions,
    WorkOptions,
    made_request,
)
from reward_tuning.errors import TuningError
from reward_tuning.sampling import sampler as sampling
from reward_tuning.tuning.trainer import run as train
from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.tiny_run import tiny_recipe, write_world

run = pytest.fixture(command, name="run")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARD_TUNING_CACHE", str(tmp_path_factory.mktemp("cache")))
        world = write_world(tmp_path_factory.mktemp("world"))
        output = tmp_path_factory.mktemp("runs") / "mine"
        recipe = tiny_recipe(world, output, "train.steps=1", "evaluation.seeds=1")
        yield train(recipe).folder


def test_lists_of_values(run: Command, folder: Path) -> None:
    done = run("evaluate", folder, "--strengths", 0, 0.5, 1, "--steps", 4, 2, "--device", "cpu")
    assert done.code == 0, done.err
    assert "mine x0.5" in done.out
    assert "mine, 2 steps" in done.out
    assert "comparisons with the base: 3 sides" in done.out
    assert str(folder / "evaluate" / "evaluation.json") in done.out
    names = sorted(path.name for path in (folder / "evaluate").iterdir())
    written = ["evaluation.csv", "evaluation.json", "report.html"]
    assert names == [".lock", "cache", "clips", *written]


def test_json_and_judges_by_name(run: Command, folder: Path, tmp_path: Path) -> None:
    judges = ("--judges", "clip_held_out", "flicker")
    where = ("--output", tmp_path / "out", "--count", 2, "--clips", 0, "--json")
    done = run("evaluate", folder, *judges, *where)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["never_trained_on"] == ["clip_held_out", "flicker"]
    assert found["prompts"] == 2
    assert found["sides"][1]["clips"] == {}


def test_stopped_by_a_signal(
    run: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sampling.euler_sample

    def stopped(*arguments: Any, **named: Any) -> torch.Tensor:
        signal.raise_signal(signal.SIGINT)
        return real(*arguments, **named)

    monkeypatch.setattr(sampling, "euler_sample", stopped)
    done = run("evaluate", folder, "--output", tmp_path / "out")
    assert done.code == 130
    assert "the same command continues" in done.err
    assert not (tmp_path / "out" / "evaluation.json").exists()


def test_errors(run: Command, folder: Path, tmp_path: Path) -> None:
    done = run("evaluate", folder, "--judges", "clip_heldout")
    assert done.code == 2
    assert "--judges: got 'clip_heldout'; did you mean clip_held_out?" in done.err
    assert "is a run folder" in run("evaluate", folder, "--output", folder).err
    assert run("evaluate").code == 2
    assert "no LoRA at" in run("evaluate", tmp_path / "nowhere", "--output", tmp_path / "o").err


def test_names_of_options() -> None:
    work = WorkOptions(dtype="float64")
    with pytest.raises(TuningError, match=r"--dtype: got 'float64'; allowed: float32, bfloat16"):
        made_request(SideOptions([Path("a")]), MeasureOptions(), work, OutputOptions())
    with pytest.raises(TuningError, match="--memory: got 'cloud'; allowed: resident, offload"):
        made_request(
            SideOptions([Path("a")]), MeasureOptions(), WorkOptions(memory="cloud"), OutputOptions()
        )
