"""A step that could not be made is a message for the user."""

from reward_tuning.errors import TuningError
from reward_tuning.runs.undone import UndoneStep


def test_it_is_shown_as_other_errors_are() -> None:
    assert issubclass(UndoneStep, TuningError)
    assert str(UndoneStep("no judge")) == "no judge"
