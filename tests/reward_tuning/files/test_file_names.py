"""Names that no file can have, and those that the file system does take."""

from pathlib import Path

import pytest

from reward_tuning.files.file_names import file_name_fault


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("a\0b.mp4", "cannot contain a NUL character"),
        ("a\ud83d.mp4", "contains an invalid Unicode character (lone surrogate)"),
        ("x" * 256, "256 bytes between two slashes (allowed: 255), 256 in all (allowed: 4095)"),
        ("é" * 128, "256 bytes between two slashes"),
        ("y/" * 2048, "1 bytes between two slashes (allowed: 255), 4096 in all (allowed: 4095)"),
    ],
)
def test_names_that_are_refused(name: str, fault: str) -> None:
    found = file_name_fault(name)
    assert found is not None
    assert fault in found


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "a b:c?*.mp4", "😀.mp4", "-", "~"])
def test_names_that_are_accepted_can_be_written(tmp_path: Path, name: str) -> None:
    assert file_name_fault(name) is None
    (tmp_path / name).touch()
