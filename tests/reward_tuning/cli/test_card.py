"""card: the file of a run's model card."""

from pathlib import Path

import pytest

from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.full_disk import largest_file
from tests.reward_tuning.sharing.finished_run import finished

__all__ = ["finished"]
run = pytest.fixture(command, name="run")


@pytest.mark.slow
def test_card_is_written_once(run: Command, finished: Path, tmp_path: Path) -> None:
    target = tmp_path / "README.md"
    done = run("card", finished, "--output", target, "--licence", "mit", "--title", "Mine")
    assert (done.code, done.out.strip()) == (0, str(target))
    text = target.read_text(encoding="utf-8")
    assert "license: mit" in text
    assert "\n# Mine\n" in text
    again = run("card", finished, "--output", target)
    assert again.code == 2
    assert "--overwrite" in again.err
    assert run("card", finished, "--output", target, "--overwrite").code == 0
    assert "license" not in target.read_text(encoding="utf-8")


@pytest.mark.slow
def test_full_disk_leaves_no_file(run: Command, finished: Path, tmp_path: Path) -> None:
    with largest_file(100):
        done = run("card", finished, "--output", tmp_path / "README.md")
    assert done.code == 2
    assert "another place" in done.err
    assert list(tmp_path.iterdir()) == []


def test_folder_as_output_and_no_run_are_refused(run: Command, tmp_path: Path) -> None:
    assert "is a folder" in run("card", tmp_path, "--output", tmp_path).err
    assert "is not a run folder" in run("card", tmp_path).err
