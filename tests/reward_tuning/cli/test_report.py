from pathlib import Path

import pytest
import typer

from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.report.evaluation_folder import write_evaluation

run = pytest.fixture(command, name="run")


def test_report_is_written_and_its_path_printed(run: Command, tmp_path: Path) -> None:
    write_evaluation(tmp_path, prompts=2, strengths=(1.0,))
    path = tmp_path / "report.html"
    assert run("report", tmp_path) == (0, f"{path}\n", "")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    other = tmp_path / "to" / "friends.html"
    assert run("report", tmp_path, "--output", other).out == f"{other}\n"
    assert other.read_bytes() == path.read_bytes()


def test_report_is_opened_on_demand(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(typer, "launch", opened.append)
    write_evaluation(tmp_path, prompts=2, strengths=(1.0,))
    assert run("report", tmp_path, "--open").code == 0
    assert opened == [(tmp_path / "report.html").resolve().as_uri()]


def test_report_of_something_else(run: Command, tmp_path: Path) -> None:
    done = run("report", tmp_path)
    assert done.code == 2
    assert "neither recipe.yaml nor evaluation.json" in done.err


def test_report_replaces_nothing_but_pages(run: Command, tmp_path: Path) -> None:
    write_evaluation(tmp_path, prompts=2, strengths=(1.0,))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("seed: 0\n")
    done = run("report", tmp_path, "--output", recipe)
    assert done == (2, "", f"error: --output: got {recipe}; give a name that ends in .html\n")
    assert recipe.read_text() == "seed: 0\n"
