"""The frame of a training: alone in its folder, one step after another, rows and checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from accelerate import Accelerator

from reward_tuning.errors import TuningError
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.idle import nothing_trained
from reward_tuning.runs.launching import ignored_settings, resume_command
from reward_tuning.runs.metrics import MetricsLog
from reward_tuning.runs.peers import watched
from reward_tuning.runs.training_state import TrainingState
from reward_tuning.schema.loop_section import LoopSection


@contextmanager
def alone_in(
    folder: RunFolder, accelerator: Accelerator, progress: ProgressFn
) -> Iterator[ProgressFn]:
    """Keep every other run out of the folder, and every process but the main one silent.

    The processes leave together: none before the main one has written everything, and all of them
    where one has ended early.

    Yields:
        Whom this process tells its progress; leaves where another process has ended or the folder
        is gone.

    Raises:
        TuningError: See `RunFolder.alone`; or the folder was moved or removed, or another process
            of the run has ended.
    """
    main = accelerator.is_main_process
    show = progress if main else silent

    def told(event: ProgressEvent) -> None:
        peers.check()
        if main:
            folder.check_there()
        show(event)

    with watched(accelerator, lambda: resume_command(folder.root)) as peers:
        with folder.alone() if main else nullcontext() as warning:
            for note in (warning, ignored_settings(os.environ)):
                if note:
                    told(ProgressEvent("loading", note=note))
            yield told
            if main:
                folder.check_there()
        accelerator.wait_for_everyone()


def report_resume_point(state: TrainingState, progress: ProgressFn) -> None:
    """Say where a resumed run goes on."""
    where = f"after step {state.step}" if state.step else "from the beginning: no checkpoint"
    progress(ProgressEvent("loading", note=f"going on {where}"))


@contextmanager
def metrics_log(
    folder: RunFolder, state: TrainingState, accelerator: Accelerator
) -> Iterator[MetricsLog | None]:
    """The run's rows, open on the main process alone; rows after the state's step are dropped.

    Raises:
        TuningError: They cannot be written.
    """
    if not accelerator.is_main_process:
        yield None
        return
    log = MetricsLog(folder.metrics, state.step)
    try:
        yield log
    finally:
        log.close()


def train_steps(
    train: LoopSection,
    state: TrainingState,
    log: MetricsLog | None,
    *,
    step: Callable[[], dict[str, Any]],
    look: Callable[[], Mapping[str, Any]],
    save: Callable[[], None],
) -> None:
    """Train from the state's step to the last.

    Args:
        train: Of the recipe.
        state: Of the run; `step` takes it further.
        log: Of the main process, which alone looks and saves; None on the others.
        step: Makes an update and gives its row.
        look: Draws the sample clips of now; gives what is to stand in the row besides.
        save: Keeps a checkpoint.

    Raises:
        TuningError: Too many steps in a row were not finite, no step of the run trained anything,
            or the disk is full.
    """
    while state.step < train.steps:
        row = step()
        lost = state.bad_in_a_row >= train.max_bad_steps
        shown = train.sample_every and state.step % train.sample_every == 0
        seen: Mapping[str, Any] = {}
        if log and shown and not lost and state.step < train.steps:  # the last clips come later
            seen = look()
        if log and (seen or is_due(state.step, train.log_every, train.steps)):
            log.write({**row, **seen})
        if lost:
            raise TuningError(too_many_bad_steps(state, train))
        if log and is_due(state.step, train.checkpoint_every, train.steps):
            log.flush()
            save()
    if state.step == state.bad_steps + state.idle_steps:
        raise TuningError(nothing_trained(state.step, state.bad_steps, state.idle.cause))


def is_due(step: int, every: int, steps: int) -> bool:
    """Whether something happens after this step: every so many, and after the last."""
    return step % every == 0 or step == steps


def too_many_bad_steps(state: TrainingState, train: LoopSection) -> str:
    """The text of giving up."""
    return (
        f"{state.bad_in_a_row} steps in a row (up to step {state.step}) gave NaN or infinity and "
        f"were skipped; train.max_bad_steps allows {train.max_bad_steps}. Lower "
        "train.learning_rate, or take generator.dtype bfloat16 or float32 in place of float16; "
        "start a new run: this one's last checkpoint may already be on its way there"
    )
