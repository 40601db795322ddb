"""The command that goes on with less memory."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from reward_tuning.cli.less_memory import OPTION, retried, words_again
from reward_tuning.runs.out_of_memory import OutOfMemory
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from tests.reward_tuning.recipes_for_tests import write_recipe

CHANGE = "train.decoder_checkpointing=segments"
ANOTHER = "train.gradient_checkpointing=true"


@pytest.mark.parametrize(
    ("words", "begun", "again"),
    [
        (["run", "mine", "seed=1", OPTION], False, ["run", "mine", "seed=1", OPTION, CHANGE]),
        (["run", "mine", "seed=1", OPTION, "--json"], True, ["RUN", CHANGE, OPTION, "--json"]),
        (["finetune", "mine", OPTION], True, ["RUN", CHANGE, OPTION]),
        (["resume", "RUN", "train.steps=9", OPTION], True, None),
    ],
)
def test_a_run_that_has_begun_is_resumed(
    tmp_path: Path, words: list[str], begun: bool, again: list[str] | None
) -> None:
    if begun:
        (tmp_path / "recipe.yaml").touch()
    found = words_again(words, tmp_path, CHANGE)
    expected = [*words, CHANGE] if again is None else again
    if expected[0] == "RUN":
        expected = ["resume", str(tmp_path), *expected[1:]]
    assert found == expected


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    found: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, words: found.append([program, *words]))
    monkeypatch.setattr(sys, "argv", ["reward-tuning", "run", "mine", OPTION])
    return found


def recipe(folder: Path, *overrides: str) -> Recipe:
    return load_recipe(write_recipe(folder), [f"output={folder / 'run'}", *overrides])


def test_a_fresh_process_goes_on_with_the_next_change(
    tmp_path: Path, started: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(OutOfMemory), retried(recipe(tmp_path), wanted=True):
        raise OutOfMemory("in the sweep")
    python = sys.executable
    words = ["run", "mine", OPTION, CHANGE]
    assert started == [[python, python, "-m", "reward_tuning.cli", *words]]
    assert capsys.readouterr().err == f"in the sweep\n\n{OPTION}: going on with {CHANGE}\n"


def test_nothing_is_started_where_it_was_not_asked_for(
    tmp_path: Path, started: list[list[str]]
) -> None:
    with (
        pytest.raises(OutOfMemory, match=r"^in the sweep$"),
        retried(recipe(tmp_path), wanted=False),
    ):
        raise OutOfMemory("in the sweep")
    assert started == []


def test_nothing_is_started_where_nothing_is_left_to_change(
    tmp_path: Path, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with (
        pytest.raises(OutOfMemory, match=f"in the sweep\n{OPTION}: nothing is left to change"),
        retried(recipe(tmp_path, CHANGE, ANOTHER), wanted=True),
    ):
        raise OutOfMemory("in the sweep")
    assert started == []


@pytest.mark.parametrize("cuda", [False, True])
def test_in_guards_the_next_change_is_one_that_helps_there(
    tmp_path: Path, started: list[list[str]], monkeypatch: pytest.MonkeyPatch, cuda: bool
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    with pytest.raises(OutOfMemory), retried(recipe(tmp_path), wanted=True):
        raise OutOfMemory("in guards", gradient=False)
    assert [words[-1] for words in started] == (["generator.memory=offload"] if cuda else [])


def test_nothing_is_started_after_a_signal(
    tmp_path: Path, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reward_tuning.runs.signals.WAITING.number", 15)
    with (
        pytest.raises(OutOfMemory, match=r"^in the sweep$"),
        retried(recipe(tmp_path), wanted=True),
    ):
        raise OutOfMemory("in the sweep")
    assert started == []


def test_several_changes_are_words_of_their_own(tmp_path: Path) -> None:
    assert words_again(["run", "mine"], tmp_path, "a=1 b=2") == ["run", "mine", "a=1", "b=2"]


def test_one_of_several_processes_does_not_start_itself_again(
    tmp_path: Path, started: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(OutOfMemory, match=f"resume with {CHANGE}$"),
        retried(recipe(tmp_path), wanted=True),
    ):
        raise OutOfMemory("in the sweep")
    assert started == []
