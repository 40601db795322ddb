"""The cache folder: its place, and folders that are filled once."""

from pathlib import Path

import pytest

from base_model.errors import GeneratorError
from base_model.files.cache_folder import cache_folder, made_once


def test_the_environment_names_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("REWARD_TUNING_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder("text") == tmp_path / ".cache" / "reward-tuning" / "text"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder("text") == tmp_path / "xdg" / "reward-tuning" / "text"
    monkeypatch.setenv("REWARD_TUNING_CACHE", "~/mine")
    assert cache_folder("text") == tmp_path / "mine" / "text"


def test_a_folder_is_filled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REWARD_TUNING_CACHE", str(tmp_path))
    calls: list[Path] = []

    def fill(folder: Path) -> None:
        calls.append(folder)
        (folder / "config.json").write_text("{}")

    first = made_once("name-1", fill, advice="")
    assert made_once("name-1", fill, advice="") == first == tmp_path / "checkpoints" / "name-1"
    assert len(calls) == 1
    assert [path.name for path in first.parent.iterdir()] == ["name-1"]


def test_a_failure_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REWARD_TUNING_CACHE", str(tmp_path))

    def full(folder: Path) -> None:
        (folder / "part").write_text("x")
        raise OSError(28, "No space left on device")

    with pytest.raises(
        GeneratorError, match=r"name-2 could not be written: No space .*\. Free it\."
    ):
        made_once("name-2", full, advice="Free it.")
    assert not list((tmp_path / "checkpoints").iterdir())


def test_the_faster_process_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REWARD_TUNING_CACHE", str(tmp_path))
    target = tmp_path / "checkpoints" / "name-3"

    def overtaken(folder: Path) -> None:
        (folder / "own").write_text("x")
        target.mkdir()
        (target / "theirs").write_text("x")

    assert made_once("name-3", overtaken, advice="") == target
    assert [path.name for path in target.iterdir()] == ["theirs"]
