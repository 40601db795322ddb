"""One optimiser step after another: rows, sample clips and checkpoints where they are due."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from accelerate import Accelerator

from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.runs.checkpoints import rng_state, set_rng_state
from reward_tuning.runs.control import Control
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.guards import EndedByGuard
from reward_tuning.runs.metrics import MetricsLog, last_row
from reward_tuning.runs.out_of_memory import MeasuringOutOfMemory, measuring
from reward_tuning.runs.signals import StepInterrupted
from reward_tuning.runs.tracker_parts import TrackerStart
from reward_tuning.runs.trackers import open_trackers
from reward_tuning.runs.training_state import Left, TrainingState
from reward_tuning.runs.undone import UndoneStep
from reward_tuning.schema.loop_section import LoopSection
from reward_tuning.section import Section


@contextmanager
def metrics_log(
    folder: RunFolder,
    state: TrainingState,
    accelerator: Accelerator,
    recipe: Section,
    progress: ProgressFn = silent,
) -> Iterator[MetricsLog | None]:
    """Open the rows and trackers on the main process; rows after the logged steps are dropped.

    Args:
        folder: Folder of the run, whose recipe.yaml is written.
        state: State of the run.
        accelerator: Processes of the run.
        recipe: Recipe of the run, with the key `tracking`.
        progress: Receives what the trackers have to say.

    Yields:
        The rows; None on the other processes.

    Raises:
        TuningError: They cannot be written, or a tracker cannot be started.
    """
    if not accelerator.is_main_process:
        yield None
        return

    def tell(line: str) -> None:
        progress(ProgressEvent("training", state.step, note=line))

    values = recipe.model_dump(mode="json")
    start = TrackerStart(folder.root, state.logged, last_row(folder.metrics))
    trackers = open_trackers(values["tracking"], start, folder.recipe, values, tell)
    log = MetricsLog(folder.metrics, state.logged, trackers)
    finished = False
    try:
        yield log
        finished = True
    finally:
        log.close(finished=finished)


def train_steps(
    train: LoopSection,
    state: TrainingState,
    log: MetricsLog | None,
    *,
    step: Callable[[], dict[str, Any]],
    evaluate: Callable[[], Mapping[str, Any]],
    save: Callable[[], None],
    control: Control | None = None,
    watch: Callable[[Mapping[str, Any]], None] = lambda row: None,
    ended: Callable[[], bool] = lambda: False,
    whole: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> None:
    """Train from the state's step to the last, or to where a guard ends the training.

    A resumed run first does what is left of the state's step.

    10 parameters: the frame's parts of a training, each of which acts at its own moment.

    Args:
        train: Section of the recipe.
        state: State of the run, which `step` advances.
        log: Rows of the main process, which alone evaluates and saves; None on the others.
        step: Make one update and return its row.
        evaluate: Draw the sample clips of now; return further columns for the row.
        save: Save a checkpoint.
        control: Orders to the run; None for a training that takes none.
        watch: Take in a step's row, on every process; may change the state.
        ended: Whether the training has ended before its last step.
        whole: Context, entered on every process, in which the main one may call the model alone.

    Raises:
        RunStopped: An order, or a signal after a step, ends the run; its checkpoint is saved.
        UndoneStep: A step cannot be made; a checkpoint of the state before it is saved.
        StepInterrupted: A signal ends a step; likewise.
        MeasuringOutOfMemory: Memory runs out in sample clips or guards; a checkpoint of the step is
            saved, with what is left to do.
        EndedByGuard: A guard ends or rejects the run.
        TuningError: The disk is full.
    """
    # Of which there is a checkpoint, or which every run begins with.
    kept = state.step, state.left
    again = state.left is not None

    def keep() -> None:
        """Save a checkpoint of what has none; on the main process."""
        nonlocal kept
        if log and kept != (state.step, state.left):
            # A resumed run keeps the rows up to its checkpoint, so they must be on the disk first.
            log.flush()
            save()
            kept = state.step, state.left

    while state.left is not None or (state.step < train.steps and not ended()):
        drawn = rng_state()
        try:
            if state.left is None:
                row = step()
                due = bool(train.sample_every and state.step % train.sample_every == 0)
                if control and control.sample():
                    due = True
                state.left = Left(row, due)
                drawn = rng_state()
            if not state.left.written:
                write_step(train, state, log, evaluate=evaluate, whole=whole)
                drawn = rng_state()
            watch(state.left.row)  # before the checkpoint, which then holds what it changed
            state.left = None
        except (UndoneStep, StepInterrupted, MeasuringOutOfMemory):
            set_rng_state(drawn)
            keep()
            raise
        if again or is_due(state.step, train.checkpoint_every, train.steps) or ended():
            keep()
        again = False
        if control and control.wait_or_stop(state.step, train.steps):
            keep()
            control.leave(state.step, train.steps)
    if reason := _first(guard.reject(state) for guard in state.guards):
        raise EndedByGuard(reason)


def write_step(
    train: LoopSection,
    state: TrainingState,
    log: MetricsLog | None,
    *,
    evaluate: Callable[[], Mapping[str, Any]],
    whole: Callable[[], AbstractContextManager[object]],
) -> None:
    """Draw the sample clips of a step that is made, and write its row, so that guards are left.

    The arguments are those of `train_steps`; `state.left` says what is left.

    Raises:
        MeasuringOutOfMemory: Memory ran out in sample clips, or for the whole model.
        EndedByGuard: A guard ends the run.
        TuningError: The disk is full.
    """
    assert state.left is not None
    reason = _first(guard.stop(state) for guard in state.guards)
    # Not after the last step, whose clips the training's `finish` makes.
    due = state.left.samples and state.step < train.steps and not reason
    seen: Mapping[str, Any] = {}
    if due:
        with measuring(), whole():  # memory may run out for the whole model, too
            seen = evaluate() if log else {}
    if log and (seen or is_due(state.step, train.log_every, train.steps)):
        log.write({**state.left.row, **seen})
    if log and due:
        log.samples(state.step)
    # Only now, so that metrics.jsonl shows the step that ended the run.
    if reason:
        raise EndedByGuard(reason)
    state.left = replace(state.left, samples=state.left.samples and not due, written=True)


def is_due(step: int, every: int, steps: int) -> bool:
    """Return whether something that happens every so many steps, and after the last, is due."""
    return step % every == 0 or step == steps


def _first(reasons: Iterator[str | None]) -> str | None:
    return next((reason for reason in reasons if reason), None)
