"""The value that every long task gives to its progress function."""

import dataclasses

import pytest

from reward_tuning.progress import ProgressEvent, silent


def test_an_event_needs_no_more_than_its_stage() -> None:
    event = ProgressEvent("training")
    assert (event.done, event.total, event.phase, event.metrics, event.note) == (0, 0, "", {}, "")
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.done = 1  # type: ignore[misc]


def test_silent_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    silent(ProgressEvent("training", note="a warning"))
    assert capsys.readouterr() == ("", "")
