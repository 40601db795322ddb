"""The guards of a run at work: evaluations where they are due, decisions, the best checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from reward_tuning.files.finite_json import without_infinities
from reward_tuning.progress import ProgressEvent, ProgressFn
from reward_tuning.runs.checkpoints import checkpoint_steps
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.guard_files import (
    read_best,
    read_guard_rows,
    remove_best_but,
    save_best,
    write_guard_rows,
)
from reward_tuning.runs.guard_rules import acts, best_row, decided, rollbacks, row_of, stops
from reward_tuning.runs.loop import is_due
from reward_tuning.runs.metrics import MetricsLog
from reward_tuning.runs.out_of_memory import MeasuringOutOfMemory
from reward_tuning.runs.training_state import TrainingState, roll_back
from reward_tuning.schema.recipe import Recipe
from reward_tuning.statistics.ratios import Ratio
from reward_tuning.tuning.choice import choice
from reward_tuning.tuning.guard_base import check_comparable, read_base, save_base
from reward_tuning.tuning.guard_evaluation import GuardEvaluation, GuardScores
from reward_tuning.tuning.parts import RunParts


class GuardWatch:
    """The guards of a reward tuning. Every process has one, and all of them decide alike.

    Args:
        recipe: Resolved.
        parts: Parts of the run, before its first step: the adapter is that of its start.
        folder: The run folder.
        accelerator: Processes of the run.
        progress: Receives every event.

    Attributes:
        rows: Rows of guards.jsonl so far.
    """

    def __init__(
        self,
        recipe: Recipe,
        parts: RunParts,
        folder: RunFolder,
        accelerator: Accelerator,
        progress: ProgressFn,
    ) -> None:
        self._recipe, self._parts, self._folder = recipe, parts, folder
        self._accelerator, self._progress = accelerator, progress
        self._evaluation = GuardEvaluation(recipe, parts, accelerator, progress)
        held_out = [judge.label for judge in recipe.evaluation.held_out_rewards]
        # The first one chooses the best checkpoint: the one that decides the evaluation.
        self._judges = sorted(held_out, key=lambda label: label != recipe.evaluation.primary)
        self._base: GuardScores | None = None
        self._ended = False
        self._start: Mapping[str, Tensor] = {}
        if self._may_roll_back:  # where no evaluation was sound, a rollback leads to the start
            self._start = {name: t.clone() for name, t in parts.trained.state().items()}
        self.rows: list[dict[str, Any]] = []

    @property
    def active(self) -> bool:
        """Whether the run is long enough for an evaluation."""
        every = self._recipe.guards.every
        return 0 < every <= self._recipe.train.steps

    @property
    def ended(self) -> bool:
        """Whether a rule has ended the training."""
        return self._ended

    def begin(self, state: TrainingState) -> None:
        """Take up the rows of a resumed run, and measure the base, or read what it measured."""
        guards = self._recipe.guards
        # Before the early exit: guards that are turned off leave the rate as it was.
        steps = self._recipe.train.steps
        every_row = read_guard_rows(self._folder.guards, state.judged, 1, steps)
        state.rate_factor = 0.5 ** rollbacks(every_row)
        if not self.active:
            return
        self.rows = read_guard_rows(self._folder.guards, state.judged, guards.every, steps)
        check_comparable(self._folder.guards_base, self.rows, self._recipe)
        if self._accelerator.is_main_process and self._folder.guards.exists():
            write_guard_rows(self._folder.guards, self.rows)
        self._ended = (
            bool(self.rows)
            and self.rows[-1]["step"] == state.step
            and stops(self.rows, guards, self._judges)
        )
        if not self._judges and guards.held_out.action != "off" and state.step == 0:
            self._note(
                state,
                "guards: without evaluation.held_out_rewards the rule held_out is off, and the "
                "last checkpoint counts as the best",
            )
        found = [None]
        if self._accelerator.is_main_process:
            place = self._folder.guards_base
            found = [read_base(place, self._recipe)]  # type: ignore[list-item]
            if found[0] is None and place.exists():
                again = f"guards: measuring the base again: {place} is of other guards, or damaged"
                self._note(state, again)
        if self._accelerator.num_processes > 1:  # one answer for all: measuring is shared
            broadcast_object_list(found)
        self._base = found[0]
        if self._base is None:
            self._base = self._evaluation.base()
            if self._accelerator.is_main_process:
                save_base(self._folder.guards_base, self._base, self._recipe)

    def after_step(
        self, state: TrainingState, row: Mapping[str, Any], log: MetricsLog | None
    ) -> None:
        """Take in a step; evaluate and decide where it is due, and roll back where a rule says so.

        Args:
            state: State of the run; changed by a rollback.
            row: Row of the step.
            log: Rows of the main process.

        Raises:
            MeasuringOutOfMemory: Memory ran out in the evaluation; the state is as it was.
        """
        window = state.reward_window
        self._count(state, row)
        guards, steps = self._recipe.guards, self._recipe.train.steps
        if not self.active or not is_due(state.step, guards.every, steps):
            return
        assert self._base is not None
        adapter = state.exported(self._parts.trained)
        began = time.perf_counter()
        try:
            found = self._evaluation.now(adapter, self._base)
        except MeasuringOutOfMemory:
            state.reward_window = window
            raise
        seconds = time.perf_counter() - began
        full = self._judged(state, found, seconds)
        self.rows.append(full)
        if state.step % guards.every == 0:  # a longer run would go on summing after the last step
            state.reward_window = (0.0, 0)
        if log is not None:
            self._keep_best(state, adapter)
            write_guard_rows(self._folder.guards, self.rows)
            log.track({"step": state.step, "guards": tracked(full)})
        for fired in full["fired"]:
            self._note(state, f"guard {fired['rule']} ({fired['action']}): {fired['text']}")
        if acts(full) == "rollback":
            self._accelerator.wait_for_everyone()  # for the main process's file
            self._roll_back(state, full["back_to"])
        self._ended = acts(full) == "stop"

    def chosen(self, state: TrainingState) -> tuple[Mapping[str, Tensor], dict[str, Any] | None]:
        """Return the adapter to export, and the entry `checkpoint` of evaluation.json.

        The entry is None for a run without guard evaluations.
        """
        last = state.exported(self._parts.trained)
        if not self.rows:
            return last, None
        found = choice(self.rows, self._recipe, self._judges, made=state.step, ended=self._ended)
        if found["step"] == state.step:
            return last, found
        self._accelerator.wait_for_everyone()
        best = read_best(self._folder.checkpoints, found["step"])
        return {name: best[name].to(tensor.device) for name, tensor in last.items()}, found

    @property
    def _may_roll_back(self) -> bool:
        guards = self._recipe.guards
        rules = (guards.held_out, guards.motion, guards.diversity, guards.drift)
        return self.active and any(rule.action == "rollback" for rule in rules)

    def _count(self, state: TrainingState, row: Mapping[str, Any]) -> None:
        """Add a step's reward to the mean: its judges' scores by their weights in the loss."""
        judges = self._parts.judges
        scores = [row["reward"].get(judge.label, math.nan) for judge in judges]
        reward = sum(
            judge.weight * score / judge.std for judge, score in zip(judges, scores, strict=True)
        )
        if math.isfinite(reward):  # a skipped step has none
            total, count = state.reward_window
            state.reward_window = (total + reward, count + 1)

    def _judged(self, state: TrainingState, found: GuardScores, seconds: float) -> dict[str, Any]:
        assert self._base is not None
        total, count = state.reward_window
        before = self.rows[-1]["reward"]["now"] if self.rows else None
        if self.rows and acts(self.rows[-1]) == "rollback":
            before = None  # of steps that are undone
        row = row_of(
            state.step,
            seconds,
            (before, total / count if count else None),
            found.values,
            self._base.values,
            Ratio.of(found.diversity, self._base.diversity),
            found.drift,
            self._judges,
        )
        row["diversity_of"] = found.diversity_of
        # As JSON keeps it, so that a resumed run decides by the same numbers.
        judged = decided(
            without_infinities(row),
            self.rows,
            self._recipe.guards,
            self._judges,
            final=state.step == self._recipe.train.steps,
        )
        return dict(judged)

    def _keep_best(self, state: TrainingState, adapter: Mapping[str, Tensor]) -> None:
        """Write the adapter if it is the best so far; remove those that nothing needs any more.

        A resume drops the rows after its checkpoint, so the best of every checkpoint stays.
        """
        places, every = self._folder.checkpoints, self._recipe.guards.every
        on_grid = state.step % every == 0  # else it is the last step, whose adapter is in `state`
        if self.rows[-1]["best"] == state.step and on_grid:
            save_best(places, state.step, adapter, self._recipe)
        needed = {self.rows[-1]["best"]}
        for step in checkpoint_steps(places):
            then = [row for row in self.rows if row["step"] <= step and row["step"] % every == 0]
            best = best_row(then, self._judges[0] if self._judges else None)
            needed |= {best["step"]} if best is not None else set()
        remove_best_but(places, needed)

    def _roll_back(self, state: TrainingState, step: int) -> None:
        tensors = self._start if step == 0 else read_best(self._folder.checkpoints, step)
        roll_back(state, self._recipe.train, self._parts.trained, tensors)
        state.rate_factor = 0.5 ** rollbacks(self.rows)
        place = f"step {step}" if step else "the start"
        self._note(
            state, f"back to {place}; the learning rate is {state.rate_factor:g} of the recipe's"
        )

    def _note(self, state: TrainingState, text: str) -> None:
        self._progress(ProgressEvent("training", state.step, self._recipe.train.steps, note=text))


def tracked(row: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the numbers of a row for the trackers, by name."""
    return {
        **{name: found["now"] for name, found in row["measures"].items() if name != "motion"},
        **{name: row[name] for name in ("motion", "diversity", "drift")},
    }
