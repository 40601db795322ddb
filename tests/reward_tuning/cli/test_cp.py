"""cp: the copy, its run folder, and what it does not overwrite."""

from pathlib import Path

import pytest

from reward_tuning.cli.cp import own_output
from reward_tuning.files.yaml_text import read_yaml
from reward_tuning.schema.locate import find_recipe, finetune_recipes, shipped_recipes
from tests.reward_tuning.command_line import Command, command

run = pytest.fixture(command, name="run")


@pytest.mark.parametrize("name", [r.name for r in (*shipped_recipes(), *finetune_recipes())])
def test_cp(run: Command, tmp_path: Path, name: str) -> None:
    """Letter for letter, but for the run folder, which is the copy's own."""
    source = find_recipe(name).read_text(encoding="utf-8")
    target = tmp_path / "new" / "my: one.yaml"
    done = run("cp", name, target)
    assert done.out.startswith(f"{target}, its output is runs/my: one\n")
    assert [path.name for path in target.parent.iterdir()] == ["my: one.yaml"]
    copied = target.read_text(encoding="utf-8")
    changed = [
        (a, b) for a, b in zip(source.splitlines(), copied.splitlines(), strict=True) if a != b
    ]
    assert len(changed) == 1
    assert changed[0][0].startswith("output: runs/")
    assert read_yaml(copied) == read_yaml(source) | {"output": "runs/my: one"}


def test_cp_keeps_comments_and_recipes_without_output() -> None:
    text = "seed: 1\noutput: 'a b'  # mine\nother: {output: x}\n  output: y\n"
    assert own_output(text, "b")[0] == text.replace("'a b'", "runs/b")
    assert own_output("seed: 1\n", "b") == ("seed: 1\n", "")


def test_cp_into_a_folder(run: Command, tmp_path: Path) -> None:
    assert run("cp", "tiny-drtune-hps", tmp_path).code == 0
    assert (tmp_path / "tiny-drtune-hps.yaml").is_file()


def test_cp_does_not_overwrite(run: Command, tmp_path: Path) -> None:
    target = tmp_path / "mine.yaml"
    target.write_text("mine")
    done = run("cp", "tiny-drtune-hps", target)
    assert done.code == 2
    assert "--overwrite" in done.err
    assert target.read_text() == "mine"
    assert run("cp", "tiny-drtune-hps", target, "--overwrite").code == 0
    assert target.read_text().startswith("# ")


def test_cp_where_nothing_can_be_written(run: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("cp", "tiny-drtune-hps", tmp_path / "file" / "mine.yaml")
    assert done.code == 2
    assert done.err.startswith("error: ")
