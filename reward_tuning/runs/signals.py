"""A signal while steps are made: the phase at work ends, then the run saves itself and ends.

The command line owns the handlers. While a training waits here, a handler leaves its signal instead
of raising: a half-made step is given up between two of its phases, where the state is still that of
the step before. Everywhere else nothing would be lost by stopping at once. Imports no torch.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from accelerate import Accelerator


OUT_OF_MEMORY = 1000
"""Stands in for the number of a signal, above all of them."""


class StepInterrupted(Exception):  # noqa: N818 - no error: somebody asked for it
    """A signal ends the step at work, which has changed nothing yet; all processes raise it.

    Attributes:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class PhaseLeft(Exception):  # noqa: N818 - ends the phases of one process, inside its step alone
    """A signal has arrived before a phase of a step begins."""


@dataclass
class _Training:
    """A training that takes signals.

    Attributes:
        tells: It says on stderr what a signal does.
        number: The signal that has arrived; 0 for none.
        otherwise: What its handler does where no training waits.
    """

    tells: bool
    number: int = 0
    otherwise: Callable[[], None] = lambda: None


_trainings: list[_Training] = []


@contextmanager
def signals_wait(*, tells: bool) -> Iterator[None]:
    """Let signals wait for the end of a phase within the context, which makes the steps.

    Args:
        tells: Say on stderr what a signal does; for the main process.
    """
    training = _Training(tells)
    _trainings.append(training)
    try:
        yield
    finally:
        _trainings.remove(training)
    if training.number:  # after the last look at it
        training.otherwise()


def keep_signal(number: int, otherwise: Callable[[], None]) -> bool:
    """Leave a signal to the training that waits for one; for a signal handler.

    Args:
        number: Number of the signal.
        otherwise: Stop at once; called where the training ends without having seen the signal.

    Returns:
        Whether a training waits.
    """
    if not _trainings:
        return False
    training = _trainings[-1]
    if not training.number and training.tells:
        text = (
            "\nstopping after the current phase, with a checkpoint; a second signal stops at once\n"
        )
        with suppress(OSError):  # not by `print`: the handler may have interrupted one
            os.write(2, text.encode())
    training.number, training.otherwise = number, otherwise
    return True


def signal_name(number: int) -> str:
    """Name a signal for people."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def kept_signal() -> int:
    """Return the number of the signal that has arrived in this process; 0 for none."""
    return _trainings[-1].number if _trainings else 0


def leave_at_signal() -> None:
    """Leave a step's phases if a signal has arrived.

    Raises:
        PhaseLeft: One has.
    """
    if kept_signal():
        raise PhaseLeft


def agreed_end(accelerator: Accelerator, *, out_of_memory: bool = False) -> int:
    """Return the signal that has arrived in any process, the same in all; 0 for none.

    Args:
        accelerator: Processes of the run; each of them calls this at the same point.
        out_of_memory: Memory ran out in this process.

    Returns:
        `OUT_OF_MEMORY` where it did in any.
    """
    mine = OUT_OF_MEMORY if out_of_memory else kept_signal()
    if accelerator.num_processes == 1:
        return mine
    from reward_tuning.runs.ranks import largest_of_all

    return int(largest_of_all(float(mine), accelerator))
