"""distil: its verb, its resume, and what validate says of its recipe."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.distil.few_steps import small_recipe
from tests.reward_tuning.tiny_run import write_world

run = pytest.fixture(command, name="run")


def test_validate_prints_every_value_and_names_what_is_wrong(run: Command) -> None:
    done = run("validate", "distil/tiny-4-steps", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["student"]["steps"] == 4
    assert found["teacher"]["guidance_rescale"] == 0.0
    wrong = run("validate", "distil/tiny-4-steps", "evaluation.prompts=1000")
    assert wrong.code == 2
    assert "evaluation.prompts: got 1000; allowed: 2 to 128" in wrong.err


def test_distil_and_resume_train_its_recipe(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, bool]] = []
    module = ModuleType("reward_tuning.distil.trainer")

    def distil(recipe: Any, *, resume: bool, progress: Any) -> SimpleNamespace:
        calls.append((recipe, resume))
        raise KeyboardInterrupt

    module.distil = distil  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reward_tuning.distil.trainer", module)
    output = tmp_path / "run"
    run("distil", "distil/tiny-4-steps", "train.steps=8", f"output={output}")
    world = write_world(tmp_path / "world")
    from reward_tuning.distil.folder import DistilFolder

    DistilFolder(output).begin(small_recipe(world, output), {})
    run("resume", output)
    assert [(recipe.train.steps, resume) for recipe, resume in calls] == [(8, False), (4, True)]
    refused = run("distil", "distil/tiny-4-steps", f"output={output}")
    assert refused.code == 2
    assert "reward-tuning resume" in refused.err
    assert len(calls) == 2


def test_ls_lists_its_recipes(run: Command) -> None:
    names = [one["name"] for one in json.loads(run("ls", "--json").out)["recipes"]]
    assert "distil/tiny-4-steps" in names
