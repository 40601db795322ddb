"""The frame of any training: alone in its folder, begun or resumed, trained, finished.

A kind of training is a `Training`: what it loads, one step, one evaluation, and its end. The order
of everything around them is here, for all of them alike.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator

from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.runs.checkpoints import seed_rng
from reward_tuning.runs.control import Control
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.launching import ignored_settings, join_processes, leave_at_exit
from reward_tuning.runs.loop import metrics_log, train_steps
from reward_tuning.runs.machine import record_start
from reward_tuning.runs.metrics import MetricsLog
from reward_tuning.runs.out_of_memory import StepOutOfMemory, out_of_memory_told
from reward_tuning.runs.peers import leaving_together, watch_peers
from reward_tuning.runs.resumable import memory_keys
from reward_tuning.runs.resume_command import resume_command
from reward_tuning.runs.resuming import restore_state
from reward_tuning.runs.shared_weights import SharedWeights, refuse_alone
from reward_tuning.runs.signals import StepInterrupted, signals_wait
from reward_tuning.runs.status import kept_status
from reward_tuning.runs.training_state import Trained, TrainingState, save_state
from reward_tuning.runs.undone import UndoneStep
from reward_tuning.schema.loop_section import LoopSection
from reward_tuning.section import Section


class Training(Protocol):
    """One kind of training, loaded. Every process calls its methods, unless they say otherwise."""

    @property
    def trained(self) -> Trained:
        """The parameters that are trained."""

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Hashes of everything that was loaded, by name: a resume needs the same."""

    @property
    def draws_a_step(self) -> tuple[int, str]:
        """What an optimiser step draws on all processes: how many, and of what."""

    @property
    def weights(self) -> SharedWeights:
        """The generator's weights, which its processes may share."""

    def describe_fingerprint(self, name: str) -> str:
        """Name for people what a fingerprint was made of."""

    def prepare(self, *, resume: bool) -> None:
        """Make what lies in the run folder and needs it begun."""

    def initial_state(self) -> TrainingState:
        """Return the state before the first step."""

    def before(self, state: TrainingState, log: MetricsLog | None) -> None:
        """Show and measure what there is before training; `state` may be a resumed one."""

    def step(self, state: TrainingState) -> dict[str, Any]:
        """Make one update and return its row of metrics.jsonl."""

    def evaluate(self, state: TrainingState) -> Mapping[str, Any]:
        """Draw sample clips and return further columns of the row; the main process alone."""

    def watch(self, state: TrainingState, row: Mapping[str, Any], log: MetricsLog | None) -> None:
        """Take in a step's row, and measure and judge the training where that is due."""

    def ended(self) -> bool:
        """Return whether the training ends before its last step."""

    def finish(self, state: TrainingState, log: MetricsLog | None) -> dict[str, Any]:
        """Export, evaluate, and return the final evaluation, which the main process writes last."""


Load = Callable[[Accelerator, ProgressFn], Training]


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        folder: The run folder.
        steps: Optimiser steps, skipped ones included.
        evaluation: Content of evaluation.json (finetune.json of a fine-tuning).
    """

    folder: Path
    steps: int
    evaluation: Mapping[str, Any]


def run_training(
    folder: RunFolder,
    recipe: Section,
    train: LoopSection,
    load: Load,
    *,
    resume: bool,
    progress: ProgressFn,
) -> RunResult:
    """Take a training from its recipe to its last file.

    Args:
        folder: Folder of the run.
        recipe: The resolved recipe.
        train: Its section of the loop.
        load: Load everything that the recipe names.
        resume: Continue the run in the folder from its newest checkpoint. A finished run is
            returned as it is, unless the recipe has more steps.
        progress: Receives every event, many a step.

    Raises:
        TuningError: The folder holds a run already (or none to resume, or another recipe's), the
            disk is full, a guard ended the run, or another process has ended.
        RunStopped: `control/stop` or a signal asked for it; the run can be resumed.
        UndoneStep: A step cannot be made, such as without a judge's server; it can be resumed.
        OutOfMemory: An allocation failed; the run can be resumed with less memory.
    """
    accelerator = join_processes()
    refuse_alone(recipe, accelerator.num_processes)
    with exclusive_run(folder, accelerator, progress) as alone, ExitStack() as stack:
        finished = folder.open(recipe, resume=resume)
        if accelerator.is_main_process:
            folder.remove_leftovers()
        if finished is not None:
            stopped = (finished.get("checkpoint") or {}).get("stopped_at")
            return RunResult(folder.root, stopped or train.steps, finished)
        main = accelerator.is_main_process
        kept = kept_status(folder.root, folder.recipe.is_file, alone)
        report = stack.enter_context(kept if main else nullcontext(alone))
        values = recipe.model_dump(mode="json")
        told = out_of_memory_told(values, folder.root, report, lambda: on_cuda(accelerator))
        report = stack.enter_context(told)
        control = Control(folder.root, accelerator, report)
        control.clear()
        with accelerator.main_process_first():  # the others find the text states in the cache
            training = load(accelerator, report)
        # Only now: a run that cannot be loaded leaves no folder behind.
        if main and not resume:
            folder.begin(recipe, training.fingerprints, processes=accelerator.num_processes)
        _prepare(training, resume=resume)
        state = training.initial_state()
        seed_rng(values["seed"])
        if resume:
            _take_up(training, state, recipe, folder, accelerator, report)
        if main:
            record_start(
                folder.root,
                accelerator.device,
                step=state.step,
                processes=accelerator.num_processes,
                memory_keys=memory_keys(values),
            )
        with metrics_log(folder, state, accelerator, recipe, report) as log:
            with training.weights.whole():
                training.before(state, log)
            if log and state.logged == 0:
                log.samples(0)
            try:
                with signals_wait(tells=main):
                    train_steps(
                        train,
                        state,
                        log,
                        step=lambda: training.step(state),
                        evaluate=lambda: training.evaluate(state),
                        save=lambda: save_state(
                            state, train, training.trained, recipe, training.fingerprints, folder
                        ),
                        control=control,
                        watch=lambda row: training.watch(state, row, log),
                        ended=training.ended,
                        whole=training.weights.whole,
                    )
            except StepInterrupted as interrupted:
                control.leave(state.step, train.steps, interrupted.number)
            except StepOutOfMemory:
                raise
            except UndoneStep as undone:
                raise UndoneStep(with_resume_command(undone, folder.root)) from undone
            with training.weights.whole():
                evaluation = training.finish(state, log)
            if log:
                chosen = evaluation.get("checkpoint") or {}
                log.samples(state.step, pairs=True, of=chosen.get("step"))
                log.evaluation(state.step, evaluation)
        return RunResult(folder.root, state.step, evaluation)


def _prepare(training: Training, *, resume: bool) -> None:
    training.weights.share()  # by all processes at once, unlike loading
    with training.weights.whole():
        training.prepare(resume=resume)


def _take_up(
    training: Training,
    state: TrainingState,
    recipe: Section,
    folder: RunFolder,
    accelerator: Accelerator,
    report: ProgressFn,
) -> None:
    """Load the newest checkpoint of a run, and keep the recipe that it continues with."""
    restore_state(
        state,
        training.trained,
        recipe,
        training.fingerprints,
        folder,
        draws_a_step=training.draws_a_step,
        describe_fingerprint=training.describe_fingerprint,
        progress=report,
    )
    if note := folder.changed_memory(recipe):
        report(ProgressEvent("loading", note=note))
    # After the comparison with what the run began with, which this may overwrite.
    if accelerator.is_main_process:
        folder.continue_with(recipe, training.fingerprints, processes=accelerator.num_processes)
    report_resume_point(state, report)


@contextmanager
def exclusive_run(
    folder: RunFolder, accelerator: Accelerator, progress: ProgressFn
) -> Iterator[ProgressFn]:
    """Keep every other run out of the folder, and every process but the main one silent.

    The processes leave together: none before the main one has written everything and closed its
    trackers, and all of them where one has ended early.

    Yields:
        The progress function of this process. It raises where another process has ended or the
        folder is gone, so a long task notices either at its next event.

    Raises:
        TuningError: See `RunFolder.locked`; or the folder was moved or removed, or another process
            of the run has ended.
    """
    main = accelerator.is_main_process
    show = progress if main else silent

    def report(event: ProgressEvent) -> None:
        peers.check()
        if main:
            folder.check_in_place()
        show(event)

    with (
        watch_peers(accelerator, lambda: resume_command(folder.root)) as peers,
        leaving_together(accelerator),
        folder.locked() if main else nullcontext() as warning,
    ):
        for note in (warning, ignored_settings(os.environ)):
            if note:
                report(ProgressEvent("loading", note=note))
        yield report
        if main:
            folder.check_in_place()
    leave_at_exit()  # of a Python program; the command line leaves at once


def on_cuda(accelerator: Accelerator) -> bool:
    """Return whether a run uses a GPU."""
    return accelerator.device.type == "cuda"


def with_resume_command(error: Exception, folder: Path) -> str:
    """Return the message of an error that ends a sound run, with the command that resumes it."""
    return f"{error}. Nothing is lost: continue with `{resume_command(folder)}`"


def report_resume_point(state: TrainingState, progress: ProgressFn) -> None:
    """Report the step from which a resumed run continues."""
    where = f"after step {state.step}" if state.step else "from the beginning: no checkpoint"
    progress(ProgressEvent("loading", note=f"continuing {where}"))
