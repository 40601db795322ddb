"""Signals that wait for the end of a phase."""

from __future__ import annotations

import signal

import pytest
from accelerate import Accelerator

from reward_tuning.runs.signals import (
    WAITING,
    agreed_signal,
    keep_signal,
    signal_name,
    signals_wait,
)


class AtOnceError(Exception):
    pass


def at_once() -> None:
    raise AtOnceError


def test_without_a_training_a_signal_is_not_kept() -> None:
    assert not keep_signal(signal.SIGTERM, at_once)
    assert WAITING.number == 0


def test_a_signal_waits_until_the_training_looks(capfd: pytest.CaptureFixture[str]) -> None:
    accelerator = Accelerator(cpu=True)
    with pytest.raises(AtOnceError), signals_wait(tells=True):
        assert agreed_signal(accelerator) == 0
        assert keep_signal(signal.SIGTERM, at_once)
        assert agreed_signal(accelerator) == WAITING.number == signal.SIGTERM
    # Above: steps that end without a look at it stop at once, as everything after them does.
    assert (WAITING.active, WAITING.number) == (False, 0)
    told = "stopping after the current phase, with a checkpoint; a second signal stops at once"
    assert capfd.readouterr().err == f"\n{told}\n"


def test_an_error_of_the_steps_goes_before_the_signal(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="of the steps"), signals_wait(tells=False):
        keep_signal(signal.SIGINT, at_once)
        raise ValueError("of the steps")
    assert capfd.readouterr().err == ""  # a process that is not the main one says nothing
    assert WAITING.number == signal.SIGINT  # nothing is started again after it
    with signals_wait(tells=False):
        assert WAITING.number == 0


def test_names() -> None:
    assert [signal_name(number) for number in (signal.SIGINT, signal.SIGTERM)] == [
        "Ctrl-C",
        "SIGTERM",
    ]
