"""Free disk against what is needed, of one place and of several on one disk."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from reward_tuning.doctor.disks import Place, disk_facts, shared_memory_fact


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def with_free(monkeypatch: pytest.MonkeyPatch, free: float, total: float = 1e12) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(int(total), 0, int(free)))


def place(folder: Path, name: str = "output folder", needed: float = 0.0) -> Place:
    return Place(name, folder, "choose another folder: output=FOLDER", int(needed), "checkpoints")


def test_a_folder_that_does_not_exist_is_on_the_disk_of_one_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(monkeypatch, 50e9)
    (fact,) = disk_facts([place(tmp_path / "not/yet", needed=2e9)])
    assert fact.mark == "ok"
    assert fact.value == f"50 GB free at {tmp_path / 'not/yet'}; needs about 2 GB: checkpoints"
    assert not (tmp_path / "not").exists()


def test_too_little_for_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_free(monkeypatch, 20e9)
    (fact,) = disk_facts([place(tmp_path, needed=31e9)])
    assert fact.mark == "problem"
    assert fact.todo == "free 11 GB there, or choose another folder: output=FOLDER"


def test_what_goes_to_one_disk_is_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_free(monkeypatch, 40e9)
    both = [place(tmp_path / "a", needed=31e9), place(tmp_path / "b", "hub cache", 15e9)]
    assert [fact.mark for fact in disk_facts(both[:1])] == ["ok"]
    facts = list(disk_facts(both))
    assert [fact.mark for fact in facts] == ["problem", "problem"]
    assert "all that goes to this disk is about 46 GB" in facts[0].value
    assert facts[0].todo.startswith("free 6 GB there")


def test_little_space_without_a_recipe_is_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_free(monkeypatch, 0.2e9)
    (fact,) = disk_facts([place(tmp_path)])
    assert (fact.mark, fact.value) == ("note", f"200.0 MB free at {tmp_path}")


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    (fact,) = disk_facts([place(tmp_path / "runs/mine")])
    assert (fact.mark, fact.value) == ("problem", f"{tmp_path / 'runs'} is a file")


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != tmp_path)
    (fact,) = disk_facts([place(tmp_path / "runs")])
    assert (fact.mark, fact.value) == ("problem", f"{tmp_path} cannot be written")
    assert "output=FOLDER" in fact.todo


def test_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_free(monkeypatch, 64e6, 64e6)
    (small,) = shared_memory_fact(tmp_path)
    assert small.mark == "note"
    assert "--shm-size" in small.todo
    with_free(monkeypatch, 8e9, 16e9)
    (large,) = shared_memory_fact(tmp_path)
    assert (large.mark, large.value) == ("ok", f"16 GB at {tmp_path}, 8 GB free")
    (none,) = shared_memory_fact(tmp_path / "gone")
    assert none.mark == "ok"
