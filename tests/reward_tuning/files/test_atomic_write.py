"""Files are written whole or not at all, with advice that fits the fault."""

from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.files.atomic_write import (
    ANOTHER_PLACE,
    atomic_write,
    check_writable,
    not_written,
)
from reward_tuning.runs.folder import RunFolder
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from tests.reward_tuning.full_disk import largest_file
from tests.reward_tuning.recipes_for_tests import write_recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return load_recipe(write_recipe(tmp_path / "recipe"), [f"output={tmp_path / 'run'}"])


def test_a_file_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    atomic_write(path, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(TuningError, match=r"No space left.*free some space"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_advice_fits_the_fault(recipe: Recipe, tmp_path: Path) -> None:
    """Where nothing was begun there is nothing to resume; permissions are no want of space."""
    folder = RunFolder(recipe.output)
    with (
        largest_file(16),
        pytest.raises(TuningError, match=r"free some space or choose .* output=DIR$"),
    ):
        folder.begin(recipe, {})
    folder.begin(recipe, {})
    with largest_file(16), pytest.raises(TuningError, match=r"free some space, then .*resume"):
        atomic_write(folder.evaluation, b"0" * 100)
    found = str(not_written(tmp_path, PermissionError(13, "Permission denied")))
    assert found.endswith(
        "make it writable, then continue with `reward-tuning resume` on the run folder"
    )
    found = str(not_written(tmp_path, FileNotFoundError(2, "No such file"), advice=ANOTHER_PLACE))
    assert found.endswith("check where its folder has gone or choose another place")


def test_a_reader_of_the_old_file_is_not_disturbed(tmp_path: Path) -> None:
    path = tmp_path / "new/a.json"
    atomic_write(path, b"old content")
    with path.open("rb", buffering=0) as reader:
        assert reader.read(3) == b"old"
        atomic_write(path, b"new")
        assert reader.read() == b" content"
    assert path.read_bytes() == b"new"


def test_a_folder_is_checked_before_it_exists(tmp_path: Path) -> None:
    check_writable(tmp_path / "a/b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(TuningError, match=r"cannot write in .*file/a: .*file is not a folder"):
        check_writable(tmp_path / "file/a")
    with pytest.raises(TuningError, match=r"cannot write in /proc: .*; free some space or choose"):
        check_writable(Path("/proc"))
