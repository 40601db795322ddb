"""JSON of a judge's file or folder: objects are read, everything else is refused by name."""

from pathlib import Path

import pytest

from rewards import RewardError
from rewards.core.json_text import json_file, json_object


def test_an_object_is_read(tmp_path: Path) -> None:
    assert json_object('{"a": [1, 2]}', "x") == {"a": [1, 2]}
    (tmp_path / "config.json").write_text('{"name": "é"}', encoding="utf-8")
    assert json_file(tmp_path / "config.json") == {"name": "é"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": ', "config.json is not valid JSON"),
        ("[" * 100_000, "config.json is not valid JSON"),
        ("[1]", "config.json contains a list instead of named values"),
        ("null", "config.json contains a NoneType instead of named values"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(RewardError, match=said):
        json_file(path)
    with pytest.raises(RewardError, match=said):
        json_object(text, "config.json")


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.json").write_bytes(b'{"a": "\xe9"}')
    for name in ("latin.json", "gone.json"):
        with pytest.raises(RewardError, match=f"{name} cannot be read"):
            json_file(tmp_path / name)
