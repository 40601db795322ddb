"""show: a recipe letter for letter, and a run under way."""

import json
from pathlib import Path

import pytest

from reward_tuning.schema.locate import shipped_recipes
from tests.reward_tuning.cli.finished_run import finished_run
from tests.reward_tuning.cli.test_sides_table import FOUND as EVALUATION
from tests.reward_tuning.command_line import Command, command

run = pytest.fixture(command, name="run")


def test_show_is_the_file_with_its_comments(run: Command) -> None:
    done = run("show", "easyanimate-v5.1-7b-hps")
    path = next(r.path for r in shipped_recipes() if r.name == "easyanimate-v5.1-7b-hps")
    assert done == (0, path.read_text(encoding="utf-8"), "")
    assert done.out.startswith("# ")


def test_show_unknown(run: Command) -> None:
    done = run("show", "tiny-drtune-hbs")
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("error: no recipe 'tiny-drtune-hbs'")
    assert "Traceback" not in done.err


folder = pytest.fixture(finished_run, name="folder")


def test_show_json_of_a_recipe_and_of_a_run_under_way(run: Command, folder: Path) -> None:
    found = json.loads(run("show", "tiny-drtune-hps", "--json").out)
    assert found["recipe"]["rewards"][0]["kind"] == "hps"
    assert Path(found["path"]).is_file()
    (folder / "evaluation.json").unlink()
    expected = {"run": str(folder), "finished": False, "running": False, "steps": 10, "last": None}
    assert json.loads(run("show", folder, "--json").out) == expected
    (folder / "metrics.jsonl").write_text('{"step": 3, "loss": 0.5}\n{"step": 4, "lo')
    assert json.loads(run("show", folder, "--json").out)["last"] == {"step": 3, "loss": 0.5}


def test_show_of_an_evaluation_is_its_table(run: Command, tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps(EVALUATION))
    shown = run("show", tmp_path)
    assert shown.code == 0
    assert f"{EVALUATION['primary']} decides" in shown.out
    assert json.loads(run("show", tmp_path, "--json").out) == EVALUATION
    (tmp_path / "evaluation.json").write_text("{}")
    done = run("show", tmp_path)
    assert (done.code, done.out) == (2, "")
    assert "is not of `evaluate`" in done.err
