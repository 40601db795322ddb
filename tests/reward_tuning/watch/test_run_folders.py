"""Which folders are runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.watch import run_folders as module
from reward_tuning.watch.run_folders import checked_root, run_folders, run_id


def begin(folder: Path, file: str = "recipe.yaml", changed: float | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / file).touch()
    if changed is not None:
        os.utime(folder / file, (changed, changed))
    return folder


def test_a_run_folder_is_its_own_only_run(tmp_path: Path) -> None:
    run = begin(tmp_path / "run")
    begin(run / "inside")
    assert run_folders(run) == [run]


def test_runs_are_found_below_and_links_are_not_followed(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    found = [begin(root / "b"), begin(root / "study/a/seed-1"), begin(root / "c", "status.json")]
    begin(root / ".hidden")
    begin(root / "much/too/deep/to/be/found")
    begin(root / "b/inside")
    (root / "linked").symlink_to(begin(tmp_path / "elsewhere"))
    (root / "file").touch()
    assert run_folders(root) == sorted(found)


def test_of_too_many_runs_those_that_changed_last_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_RUNS", 2)
    begin(tmp_path / "a", changed=300)
    begin(tmp_path / "b", changed=100)
    begin(tmp_path / "c", changed=200)
    assert [path.name for path in run_folders(tmp_path)] == ["a", "c"]
    (tmp_path / "b/metrics.jsonl").touch()
    assert [path.name for path in run_folders(tmp_path)] == ["a", "b"]


def test_an_id_is_of_the_place_inside_and_tells_nothing(tmp_path: Path) -> None:
    one, two = tmp_path / "a/run", tmp_path / "b/run"
    assert run_id(tmp_path, one) != run_id(tmp_path, two)
    assert run_id(tmp_path, one) == run_id(tmp_path / "a/..", tmp_path / "a/../a/run")
    assert run_id(tmp_path, tmp_path / os.fsdecode(b"\xff")).isalnum()


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="does not exist; give a run folder"):
        checked_root(tmp_path / "missing")
    (tmp_path / "file").touch()
    with pytest.raises(TuningError, match="is not a folder"):
        checked_root(tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path)
    assert checked_root(tmp_path / "link") == tmp_path.resolve()
