"""Reward tuning in the frame of every training: one step, one evaluation.

A step draws its prompts, noise and plan by position and step, differentiates the rewards
(`reward_step`), and updates the adapter. Nothing else decides a run, so a resumed one ends in the
bytes of an uninterrupted one. Several processes, started by a launcher, share each step;
only the main one writes files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from accelerate import Accelerator

from base_model.memory.modes import MODES
from base_model.memory.offload import Offload
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.report.at_end import report_at_end
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.frame import RunResult, run_training
from reward_tuning.runs.guards import reward_guards
from reward_tuning.runs.launching import is_main_process
from reward_tuning.runs.metrics import MetricsLog
from reward_tuning.runs.ranks import all_agree, mean_of_all, mean_over_ranks
from reward_tuning.runs.shared_weights import SharedWeights
from reward_tuning.runs.training_state import Trained, TrainingState, initial_state
from reward_tuning.runs.update import Average, Further, PhaseClock, StepMeans, take_step
from reward_tuning.sampling.compilation import reported_compilation
from reward_tuning.schema.recipe import Recipe
from reward_tuning.schema.sections import TrainSection
from reward_tuning.tuning.draws import Batch, clips_a_step, draw_batch, draw_replay_batch
from reward_tuning.tuning.finish import finish, write_samples
from reward_tuning.tuning.further import FurtherUpdates
from reward_tuning.tuning.group import chosen_batch, group_columns
from reward_tuning.tuning.guard_watch import GuardWatch
from reward_tuning.tuning.matching import MatchingUpdates
from reward_tuning.tuning.outside_judges import (
    all_or_none,
    close_judges,
    remember_answers,
    resumable,
)
from reward_tuning.tuning.parts import RunParts, load_parts, with_replay
from reward_tuning.tuning.plan_draws import draw_plan
from reward_tuning.tuning.replay import replay_step
from reward_tuning.tuning.rows import plan_table, why_zero
from reward_tuning.tuning.sampled_clips import SampledClips, sampled_clips, why_unmatched
from reward_tuning.tuning.step import (
    BatchReport,
    Begun,
    PhaseFn,
    StepOptions,
    begin_batch,
    complete_batch,
)
from reward_tuning.tuning.step_columns import mean_spread, step_columns


def run(recipe: Recipe, *, resume: bool = False, progress: ProgressFn = silent) -> RunResult:
    """Train as a recipe says, evaluate the adapter and export it into the run folder.

    Then write `report.html`; a report that fails is told as a note, and the run stays finished.

    Args:
        recipe: The resolved recipe (`load_recipe`).
        resume: Continue the run in the folder from its newest checkpoint. A finished run is
            returned as it is, unless the recipe has more steps.
        progress: Receives every event, many a step.

    Raises:
        TuningError: The folder holds a run already (or none to resume, or another recipe's), a
            prompt file is wrong, the disk is full, or too many steps in a row were not finite.
        GeneratorError: The generator cannot be loaded.
        RewardError: A judge cannot be loaded.
        UndoneStep: A judge outside this process does not answer; the run can be resumed.
    """
    folder = RunFolder(recipe.output)

    def load(accelerator: Accelerator, report: ProgressFn) -> RewardTuning:
        clips = recipe.train.steps * clips_a_step(recipe.train, accelerator)
        prompts = clips // recipe.train.clips_per_prompt
        parts = load_parts(recipe, accelerator.device, prompts, report)
        closing.callback(close_judges, parts.outside)
        return RewardTuning(recipe, parts, folder, accelerator, report)

    closing = ExitStack()
    with closing, reported_compilation() if recipe.train.compile else nullcontext():
        done = run_training(folder, recipe, recipe.train, load, resume=resume, progress=progress)
    if is_main_process():
        report_at_end(done.folder, progress)
    return done


@dataclass
class RewardTuning:
    """Reward tuning, as the frame drives it (`reward_tuning.runs.frame.Training`).

    Attributes:
        recipe: The resolved recipe.
        parts: Everything that was loaded.
        folder: The run folder.
        accelerator: Processes of the run.
        progress: Receives every event.
        watch_over: The guards.
    """

    recipe: Recipe
    parts: RunParts
    folder: RunFolder
    accelerator: Accelerator
    progress: ProgressFn
    watch_over: GuardWatch = field(init=False)

    def __post_init__(self) -> None:
        self.watch_over = GuardWatch(
            self.recipe, self.parts, self.folder, self.accelerator, self.progress
        )

    @property
    def trained(self) -> Trained:
        """The adapter."""
        return self.parts.trained

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Hashes of the checkpoints and the prompts."""
        return self.parts.fingerprints

    @property
    def draws_a_step(self) -> tuple[int, str]:
        """Clips that an optimiser step draws."""
        return clips_a_step(self.recipe.train, self.accelerator), "clips"

    @property
    def weights(self) -> SharedWeights:
        """The generator's weights."""
        return SharedWeights(self.parts.sampler.generator.transformer, self.recipe.generator.memory)

    def describe_fingerprint(self, name: str) -> str:
        """Name the prompt file, or the weights, that a fingerprint was made of."""
        if name in ("prompts.train", "prompts.held_out"):
            return f"{name} ({getattr(self.recipe.prompts, name.removeprefix('prompts.'))})"
        return f"weights of {name}"

    def prepare(self, *, resume: bool) -> None:
        """Sample or read what the run folder keeps: clips of the replay, answers of judges."""
        del resume
        place, process = self.folder.replay, self.accelerator.process_index
        remember_answers(self.parts.outside, self.folder.answers, process)
        self.parts = with_replay(self.recipe, self.parts, place, self.accelerator, self.progress)

    def initial_state(self) -> TrainingState:
        """Return the state before the first step."""
        return start(self.recipe, self.parts)

    def before(self, state: TrainingState, log: MetricsLog | None) -> None:
        """Show the plan of the first step, draw clips of the base, and let the guards see it."""
        plan = draw_plan(self.recipe, self.parts.sigmas, step=1, batch=0)
        table = plan_table(self.parts.sigmas, plan)
        self.progress(ProgressEvent("training", state.step, self.recipe.train.steps, note=table))
        if log and state.step == 0:
            write_samples(self.recipe, self.parts, self.folder, 0, self.parts.start, self.progress)
        with resumable(self.folder.root):
            self.watch_over.begin(state)

    def step(self, state: TrainingState) -> dict[str, Any]:
        """Roll out, judge, and update the adapter."""
        with resumable(self.folder.root):
            return optimiser_step(self.recipe, self.parts, state, self.accelerator, self.progress)

    def evaluate(self, state: TrainingState) -> Mapping[str, Any]:
        """Draw the sample clips of now; scores are only taken at the end."""
        adapter = state.exported(self.trained)
        write_samples(self.recipe, self.parts, self.folder, state.step, adapter, self.progress)
        return {}

    def watch(self, state: TrainingState, row: Mapping[str, Any], log: MetricsLog | None) -> None:
        """Let the guards see the step."""
        with resumable(self.folder.root):
            self.watch_over.after_step(state, row, log)

    def ended(self) -> bool:
        """Return whether a guard has ended the training."""
        return self.watch_over.ended

    def finish(self, state: TrainingState, log: MetricsLog | None) -> dict[str, Any]:
        """Export the best checkpoint and evaluate it."""
        del log
        adapter, checkpoint = self.watch_over.chosen(state)
        with resumable(self.folder.root):
            return finish(
                self.recipe,
                self.parts,
                self.accelerator,
                self.folder,
                adapter,
                self.progress,
                checkpoint,
            )


def start(recipe: Recipe, parts: RunParts) -> TrainingState:
    """Return the state before the first step; its position counts clips."""
    return initial_state(recipe.train, parts.trained, reward_guards(recipe.train))


def optimiser_step(
    recipe: Recipe,
    parts: RunParts,
    state: TrainingState,
    accelerator: Accelerator,
    progress: ProgressFn = silent,
) -> dict[str, Any]:
    """Make the updates of one rollout, or skip them where loss or gradient is not finite.

    Returns:
        The step's row of metrics.jsonl.
    """
    train, step = recipe.train, state.step + 1
    options = agreeing(options_at(parts.options, train, step), recipe, accelerator)
    replays = train.replay is not None and step % train.replay.every == 0

    def replayed_batch(number: int) -> float:
        assert train.replay is not None
        assert parts.replay is not None
        draw = draw_replay_batch(recipe, len(parts.replay.prompts), step, accelerator, number)
        return replay_step(
            parts.sampler,
            parts.replay,
            draw,
            weight=train.replay.weight,
            share=parts.options.share,
        )

    def replay_again(clock: PhaseClock) -> None:
        if replays and train.replay is not None and train.replay.weight > 0:
            with clock("replay"):
                for number in range(train.gradient_accumulation):
                    replayed_batch(number)

    def backward(clock: PhaseClock, shown: dict[str, float]) -> Average:
        reports: list[BatchReport] = []
        replayed, choices = [], []
        sampled: list[SampledClips] = []
        phase = onloaded_during(parts.offload, "reward", clock)
        chain = DifferentiatedBatches(parts, options, phase, reports)
        with all_or_none(accelerator) if parts.outside else nullcontext():
            for number in range(train.gradient_accumulation):
                batch = draw_batch(recipe, parts.stream, parts.sigmas, state, accelerator, number)
                if parts.group is not None:
                    batch, choice = chosen_batch(
                        parts.sampler,
                        parts.judges,
                        batch,
                        parts.group,
                        phase=onloaded_during(parts.offload, "choice", clock),
                    )
                    choices.append(choice)
                if recipe.method.matches:
                    clips = sampled_clips(
                        parts.sampler,
                        parts.judges,
                        batch,
                        parts.sigmas,
                        options=options,
                        phase=phase,
                    )
                    sampled.append(clips)
                    reports.append(clips.report)
                else:
                    chain.add(batch)
                if reports:
                    shown.update(reports[-1].rewards)
                if replays:
                    with clock("replay"):
                        replayed.append(replayed_batch(number))
            chain.complete()
        judged = [report.judged for report in reports if report.judged is not None]
        further: Further | None = None
        matching = None
        if sampled:
            matching = MatchingUpdates(
                recipe, parts.sampler, sampled, step, accelerator, replay_again
            )
            reports = matching.first(clock)
            further = matching if train.updates_per_rollout > 1 else None
        elif train.updates_per_rollout > 1:
            further = FurtherUpdates(
                judged,
                train.updates_per_rollout - 1,
                train.reuse_limit,
                parameters=parts.trained.parameters,
                options=options,
                accelerator=accelerator,
                besides=replay_again,
            )

        def average() -> StepMeans:
            means = mean_over_ranks(reports, parts.labels, accelerator)
            replay = mean_of_all(replayed, accelerator) if replayed else None
            scores = {name: value for name, value in means.items() if "reward/" in name}
            return StepMeans(
                means["loss"],
                {"loss": means["loss"], **scores, **({} if replay is None else {"replay": replay})},
                step_columns(reports, means, replay)
                | (group_columns(choices) if choices else {})
                | ({} if matching is None else matching.first_columns()),
                lambda: (
                    why_zero(parts.judges, means, mean_spread(reports))
                    if matching is None
                    else why_unmatched(parts.judges, means)
                ),
                train.max_grad_norm,
                further,
            )

        return average

    return take_step(
        train,
        parts.trained,
        state,
        accelerator,
        progress,
        backward,
        clips_a_step(train, accelerator),
        meets=bool(parts.outside)
        or recipe.method.matches
        or MODES[recipe.generator.memory].blocks_shared,
    )


class DifferentiatedBatches:
    """The batches of a step whose gradient comes through the chain, completed in their order.

    A judge outside this process answers while the next batch is rolled out: one batch is ahead.

    Args:
        parts: Parts of the run.
        options: Options of the step.
        phase: Entered around each phase.
        reports: Receives the report of each completed batch.
    """

    def __init__(
        self, parts: RunParts, options: StepOptions, phase: PhaseFn, reports: list[BatchReport]
    ) -> None:
        self._parts, self._options, self._phase, self._reports = parts, options, phase, reports
        self._begun: list[Begun] = []

    def add(self, batch: Batch) -> None:
        """Roll out a batch, and complete the one before it, or this one where nothing waits."""
        parts = self._parts
        begun = begin_batch(
            parts.sampler,
            parts.judges,
            batch,
            parts.sigmas,
            options=self._options,
            phase=self._phase,
            asking=parts.background,
        )
        self._begun.append(begun)
        self.complete(0 if parts.background is None else 1)

    def complete(self, ahead: int = 0) -> None:
        """Complete the batches, except so many of the last ones."""
        parts = self._parts
        while len(self._begun) > ahead:
            report = complete_batch(
                self._begun.pop(0),
                parts.judges,
                parts.sigmas,
                parameters=parts.trained.parameters,
                options=self._options,
                phase=self._phase,
            )
            self._reports.append(report)


def options_at(options: StepOptions, train: TrainSection, step: int) -> StepOptions:
    """Return the options of one step: with a small decoder, every n-th decodes with the VAE.

    Args:
        options: Those of the run.
        train: The recipe's section.
        step: Counted from 1.
    """
    every = train.true_decoder_every
    if every is None or step % every:
        return options
    return replace(options, decoder="vae")


def agreeing(options: StepOptions, recipe: Recipe, accelerator: Accelerator) -> StepOptions:
    """Return the options with which all processes sweep a batch or none does.

    That is where they share weights: who sweeps would wait for ever for one that does not.
    """
    if not MODES[recipe.generator.memory].blocks_shared:
        return options
    return replace(options, agreed=partial(all_agree, accelerator=accelerator))


def onloaded_during(offload: Offload, wanted: str, phase: PhaseFn) -> PhaseFn:
    """Return the same phases, with the weights on the device during the one with that name.

    The time and memory of moving them count towards that phase.
    """

    @contextmanager
    def entered(name: str) -> Iterator[None]:
        with phase(name):
            if name != wanted:
                yield
                return
            with offload.at_work():
                yield

    return entered
