"""Training with a progress display: the summary after it, and the hint after a stop."""

import json
import signal
from pathlib import Path

import pytest

from reward_tuning.cli.stopping import Stopped, StoppedAsAsked
from reward_tuning.cli.training import resume_hint, train_with_progress
from reward_tuning.runs.control import RunStopped
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from tests.reward_tuning.cli.fake_trainer import EVALUATION, Trainer, finished, write_recipe
from tests.reward_tuning.cli.fake_trainer import trainer as fake_trainer

trainer = pytest.fixture(fake_trainer, name="trainer")


@pytest.mark.parametrize("resume", [False, True])
def test_a_finished_training_prints_its_summary(
    trainer: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str], resume: bool
) -> None:
    calls = trainer(lambda recipe: finished(Path(recipe.output), recipe))
    recipe = load_recipe(write_recipe(tmp_path), [f"output={tmp_path / 'b'}"])
    train_with_progress(recipe, resume=resume, as_json=True)
    assert calls == [(recipe, resume)]
    out, err = capsys.readouterr()
    assert json.loads(out)["evaluation"] == EVALUATION
    assert err == "training 1/4  sweep  reward 0.25\n"


def test_a_stopped_training_says_how_to_resume(
    trainer: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(recipe: Recipe) -> None:
        finished(Path(recipe.output), recipe)
        raise Stopped(signal.SIGTERM)

    trainer(stop)
    recipe = load_recipe(write_recipe(tmp_path), [f"output={tmp_path / 'b'}"])
    with pytest.raises(Stopped) as stopped:
        train_with_progress(recipe, resume=False, as_json=False)
    assert stopped.value.hint == f"resume with: reward-tuning resume {tmp_path / 'b'}"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("number", "code"), [(0, 130), (signal.SIGINT, 130), (15, 143)])
def test_a_run_that_was_asked_to_stop_says_so_on_its_main_process_alone(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    def stop(recipe: Recipe) -> None:
        raise RunStopped("stopped after step 3 of 9", number)

    trainer(stop)
    recipe = load_recipe(write_recipe(tmp_path), [f"output={tmp_path / 'b'}"])
    for main, text in ((True, "stopped after step 3 of 9"), (False, "")):
        monkeypatch.setattr("reward_tuning.runs.launching.is_main_process", lambda main=main: main)
        with pytest.raises(StoppedAsAsked) as stopped:
            train_with_progress(recipe, resume=False, as_json=False)
        assert (stopped.value.message(), stopped.value.exit_code) == (text, code)


def test_a_folder_without_a_recipe_cannot_be_resumed(tmp_path: Path) -> None:
    assert resume_hint(tmp_path) == "nothing was started yet"
