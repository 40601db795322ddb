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
class Waiting:
    """The training of this process that takes signals, if one does.

    Attributes:
        active: It makes steps.
        tells: It says on stderr what a signal does.
        number: The signal that has arrived; 0 for none.
        otherwise: What its handler does where no training waits.
    """

    active: bool = False
    tells: bool = False
    number: int = 0
    otherwise: Callable[[], None] = lambda: None


WAITING = Waiting()


@contextmanager
def signals_wait(*, tells: bool) -> Iterator[None]:
    """Let signals wait for the end of a phase within the context, which makes the steps.

    Args:
        tells: Say on stderr what a signal does; for the main process.
    """
    WAITING.active, WAITING.tells, WAITING.number = True, tells, 0
    try:
        yield
    finally:
        WAITING.active = False
    # An error keeps the number, for whoever would start the training again after it.
    number, WAITING.number = WAITING.number, 0
    if number:  # after the last look at it
        WAITING.otherwise()


def keep_signal(number: int, otherwise: Callable[[], None]) -> bool:
    """Leave a signal to the training that waits for one; for a signal handler.

    Args:
        number: Number of the signal.
        otherwise: Stop at once; called where the training ends without having seen the signal.

    Returns:
        Whether a training waits.
    """
    if not WAITING.active:
        return False
    if not WAITING.number and WAITING.tells:
        text = (
            "\nstopping after the current phase, with a checkpoint; a second signal stops at once\n"
        )
        with suppress(OSError):  # not by `print`: the handler may have interrupted one
            os.write(2, text.encode())
    WAITING.number, WAITING.otherwise = number, otherwise
    return True


def signal_name(number: int) -> str:
    """Name a signal for people."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def agreed_signal(accelerator: Accelerator) -> int:
    """Return the signal that has arrived in any process, the same in all; 0 for none.

    Args:
        accelerator: Processes of the run; each of them calls this at the same point.
    """
    if accelerator.num_processes == 1:
        return WAITING.number
    from reward_tuning.runs.ranks import largest_of_all

    return int(largest_of_all(float(WAITING.number), accelerator))
