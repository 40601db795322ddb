"""run: what it hands to the trainer, what it prints, what it refuses."""

import json
from pathlib import Path

import pytest

from reward_tuning.schema.loading import load_recipe
from tests.reward_tuning.cli.fake_trainer import (
    EVALUATION,
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
    assert "train.txt has no prompt; write one a line" in done.err
    assert calls == []
    assert not (tmp_path / "b").exists()


def test_run_without_evaluation(run: Command, trainer: Trainer, tmp_path: Path) -> None:
    trainer(lambda recipe: None)
    done = run("run", write_recipe(tmp_path), f"output={tmp_path / 'b'}")
    assert done.code == 2
    assert "has no evaluation.json" in done.err
