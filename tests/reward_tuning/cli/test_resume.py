"""resume: the folder it takes and what it hands to the trainer."""

from pathlib import Path

import pytest

from reward_tuning.schema.loading import load_recipe
from tests.reward_tuning.cli.fake_trainer import (
    Trainer,
    finished,
    write_recipe,
)
from tests.reward_tuning.cli.fake_trainer import (
    trainer as fake_trainer,
)
from tests.reward_tuning.command_line import Command, command

run = pytest.fixture(command, name="run")
trainer = pytest.fixture(fake_trainer, name="trainer")


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
