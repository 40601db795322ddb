"""Orders to a run: files in `control/` of its folder, and signals, looked for after each step.

`control/stop` saves a checkpoint and ends the run, `control/sample` draws sample clips, and
`control/pause` makes the run wait as long as the file is there. The content does not matter, so
`touch RUN/control/stop` is an order, too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from reward_tuning.errors import TuningError
from reward_tuning.progress import ProgressEvent, ProgressFn
from reward_tuning.runs.resume_command import resume_command
from reward_tuning.runs.signals import agreed_signal, signal_name

if TYPE_CHECKING:  # those who give orders need no torch
    from accelerate import Accelerator

Answer = TypeVar("Answer", str, bool)

CONTROL = "control"
STOP, SAMPLE, PAUSE = ORDERS = ("stop", "sample", "pause")
PAUSED = "paused"
"""Stage of the events of a run that waits."""
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_EVENTS = 60.0
"""A pause may last for days, and its events are lines of a log file."""


class RunStopped(TuningError):  # noqa: N818 - no error: somebody asked for it
    """A run has ended after a step, with a checkpoint, because somebody asked for it.

    Attributes:
        number: The signal that asked for it; 0 for `control/stop`.
    """

    def __init__(self, text: str, number: int = 0) -> None:
        super().__init__(text)
        self.number = number


def order_file(root: Path, order: str) -> Path:
    """Return the file that gives an order to the run in a folder."""
    assert order in ORDERS
    return root / CONTROL / order


class Control:
    """Read the orders to a run; every process has one, and the main one's files decide.

    Args:
        root: The run folder.
        accelerator: Processes of the run.
        progress: Receives an event now and then while the run waits.
        sleep: Wait for so many seconds; tests replace it.
    """

    def __init__(
        self,
        root: Path,
        accelerator: Accelerator,
        progress: ProgressFn,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._root = root
        self._accelerator = accelerator
        self._progress = progress
        self._sleep = sleep
        self._signal = 0

    def clear(self) -> None:
        """Remove orders that an earlier process of the run has left.

        Raises:
            TuningError: One cannot be removed.
        """
        if self._accelerator.is_main_process:
            for order in ORDERS:
                self._remove(order)

    def sample(self) -> bool:
        """Return whether sample clips were asked for, and take the order as done.

        Every process calls this after each step, and all learn the same.

        Raises:
            TuningError: The order cannot be removed.
        """
        return self._told(self._accelerator.is_main_process and self._remove(SAMPLE))

    def wait_or_stop(self, step: int, steps: int) -> bool:
        """Wait while the run is paused; every process calls this after each step.

        Args:
            step: Steps done.
            steps: Steps of the run.

        Returns:
            Whether the run must end here, on all processes alike.

        Raises:
            TuningError: The order to stop cannot be removed.
        """
        waited = 0.0
        while (order := self._agreed()) == PAUSE:
            if waited % SECONDS_BETWEEN_EVENTS == 0:
                file = order_file(self._root, PAUSE)
                note = "" if waited else f"paused after step {step}; remove {file} to continue"
                self._progress(ProgressEvent(PAUSED, step, steps, note=note))
            self._sleep(SECONDS_BETWEEN_LOOKS)
            waited += SECONDS_BETWEEN_LOOKS
        if waited:
            note = "" if order == STOP else f"continuing after step {step}"
            self._progress(ProgressEvent("training", step, steps, note=note))
        return order == STOP

    def leave(self, step: int, steps: int, signal: int = 0) -> None:
        """End the run, once its main process has saved it.

        Args:
            step: Steps done.
            steps: Steps of the run.
            signal: The signal that has ended a step; 0 where `wait_or_stop` says why.

        Raises:
            RunStopped: Always.
        """
        # Nobody may leave while the main process saves: it would take that for a lost process.
        self._accelerator.wait_for_everyone()
        number = signal or self._signal
        asked = signal_name(number) if number else str(order_file(self._root, STOP))
        raise RunStopped(
            f"stopped after step {step} of {steps}, as {asked} asked; "
            f"resume with: {resume_command(self._root)}",
            number,
        )

    def _agreed(self) -> str:
        """Return the order that holds for all processes: stop, pause, or none.

        A signal is an order to stop, whichever process has received it.
        """
        self._signal = agreed_signal(self._accelerator)
        if self._signal:
            return STOP
        return self._told(self._read() if self._accelerator.is_main_process else "")

    def _told(self, mine: Answer) -> Answer:
        """Return what the main process has found."""
        found = [mine]
        if self._accelerator.num_processes > 1:
            from accelerate.utils import broadcast_object_list

            broadcast_object_list(found)
        return found[0]

    def _read(self) -> str:
        if self._remove(STOP):
            return STOP
        return PAUSE if order_file(self._root, PAUSE).exists() else ""

    def _remove(self, order: str) -> bool:
        """Remove the file of an order; return whether there was one."""
        file = order_file(self._root, order)
        try:
            file.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise TuningError(
                f"{file} cannot be removed: {error.strerror or error}. It is an order to the run, "
                "a plain file that the run removes once it is done; remove it yourself"
            ) from error
        return True
