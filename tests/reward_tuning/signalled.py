"""A training under the command line's handlers that sends itself a signal."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from reward_tuning.cli.stopping import Stopped, stop_signals
from reward_tuning.cli.training import stops_explained
from reward_tuning.progress import ProgressEvent, ProgressFn


def stopped_by(
    number: signal.Signals,
    place: tuple[str, int, str],
    folder: Path,
    train: Callable[[ProgressFn], object],
) -> Stopped:
    """Train until the signal, sent at a stage, count and phase, has stopped it.

    Args:
        number: The signal.
        place: Where it is sent.
        folder: The run folder.
        train: Train with a progress function.

    Returns:
        What ends the command.
    """

    def progress(event: ProgressEvent) -> None:
        if (event.stage, event.done, event.phase) == place:
            signal.raise_signal(number)

    try:
        with stop_signals(), stops_explained(folder):
            train(progress)
    except Stopped as stop:
        return stop
    raise AssertionError("the training was not stopped")
