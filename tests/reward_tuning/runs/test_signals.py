"""Signals that wait for the end of a phase."""

from __future__ import annotations

import signal

import pytest
from accelerate import Accelerator

from reward_tuning.runs.signals import (
    OUT_OF_MEMORY,
    PhaseLeft,
    agreed_end,
    keep_signal,
    kept_signal,
    leave_at_signal,
    signal_name,
    signals_wait,
)


class AtOnceError(Exception):
    pass


def at_once() -> None:
    raise AtOnceError


def test_without_a_training_a_signal_is_not_kept() -> None:
    assert not keep_signal(signal.SIGTERM, at_once)
    assert kept_signal() == 0
    leave_at_signal()


def test_a_signal_waits_until_the_training_looks(capfd: pytest.CaptureFixture[str]) -> None:
    accelerator = Accelerator(cpu=True)
    with pytest.raises(AtOnceError), signals_wait(tells=True):
        leave_at_signal()
        assert agreed_end(accelerator) == 0
        assert keep_signal(signal.SIGTERM, at_once)
        assert agreed_end(accelerator) == kept_signal() == signal.SIGTERM
        assert agreed_end(accelerator, out_of_memory=True) == OUT_OF_MEMORY
        with pytest.raises(PhaseLeft):
            leave_at_signal()
    # Above: steps that end without a look at it stop at once, as everything after them does.
    assert kept_signal() == 0
    told = "stopping after the current phase, with a checkpoint; a second signal stops at once"
    assert capfd.readouterr().err == f"\n{told}\n"


def test_an_error_of_the_steps_goes_before_the_signal(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="of the steps"), signals_wait(tells=False):
        keep_signal(signal.SIGINT, at_once)
        raise ValueError("of the steps")
    assert capfd.readouterr().err == ""  # a process that is not the main one says nothing


def test_names() -> None:
    assert [signal_name(number) for number in (signal.SIGINT, signal.SIGTERM)] == [
        "Ctrl-C",
        "SIGTERM",
    ]
