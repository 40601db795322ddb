"""The loop: what happens after which step."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from reward_tuning.errors import TuningError
from reward_tuning.runs.control import Control, RunStopped, order_file
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.guards import Guard, StepCounts
from reward_tuning.runs.loop import is_due, metrics_log, train_steps
from reward_tuning.runs.metrics import MetricsLog
from reward_tuning.runs.out_of_memory import MeasuringOutOfMemory
from reward_tuning.runs.signals import StepInterrupted
from reward_tuning.runs.training_state import TrainingState
from reward_tuning.runs.undone import UndoneStep
from reward_tuning.schema.loading import load_recipe
from tests.reward_tuning.recipes_for_tests import write_recipe

EVERY = ("checkpoint_every=3", "sample_every=2", "log_every=2")


@dataclass
class Loop:
    """A training of seven steps that writes down what it is asked for."""

    state: TrainingState
    calls: list[str] = field(default_factory=list)
    control: Control | None = None
    orders: Mapping[int, Path] = field(default_factory=dict)  # files to create during a step
    ends_at: int = 99
    entered: int = 0

    def step(self) -> dict[str, Any]:
        self.state.step += 1
        if self.state.step in self.orders:
            self.orders[self.state.step].touch()
        return {"step": self.state.step}

    def evaluate(self) -> Mapping[str, Any]:
        self.calls.append(f"evaluate {self.state.step}")
        return {"held_out": 0.5}

    @contextmanager
    def whole(self) -> Iterator[None]:
        self.entered += 1
        yield

    def save(self) -> None:
        self.calls.append(f"save {self.state.step}")

    def watch(self, row: Mapping[str, Any]) -> None:
        assert row["step"] == self.state.step
        if self.state.step == self.ends_at:
            self.calls.append(f"end {self.state.step}")

    def ended(self) -> bool:
        return self.state.step >= self.ends_at

    def run(self, folder: Path, log: MetricsLog | None, *overrides: str) -> None:
        settings = [f"train.{text}" for text in ("steps=7", *EVERY, *overrides)]
        train = load_recipe(write_recipe(folder / "recipe"), settings).train
        train_steps(
            train,
            self.state,
            log,
            step=self.step,
            evaluate=self.evaluate,
            save=self.save,
            control=self.control,
            watch=self.watch,
            ended=self.ended,
            whole=self.whole,
        )


def loop(step: int = 0, *guards: Guard) -> Loop:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    return Loop(TrainingState(optimiser=optimiser, ema=None, guards=guards, step=step))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[MetricsLog]:
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    yield log
    log.close()


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_what_happens_after_which_step(tmp_path: Path, log: MetricsLog) -> None:
    found = loop()
    found.run(tmp_path, log)
    assert found.calls == ["evaluate 2", "save 3", "evaluate 4", "evaluate 6", "save 6", "save 7"]
    steps = {row["step"]: row.get("held_out") for row in rows(tmp_path)}
    assert steps == {2: 0.5, 4: 0.5, 6: 0.5, 7: None}


def test_a_training_that_ends_early_is_saved_there(tmp_path: Path, log: MetricsLog) -> None:
    """After the watch, whose changes the checkpoint holds; what has ended makes no step."""
    found = loop()
    found.ends_at = 5
    found.run(tmp_path, log)
    assert found.calls == ["evaluate 2", "save 3", "evaluate 4", "end 5", "save 5"]
    found.run(tmp_path, log)
    assert found.state.step == 5


def test_the_last_clips_are_left_to_the_end(tmp_path: Path, log: MetricsLog) -> None:
    found = loop()
    found.run(tmp_path, log, "sample_every=7")
    assert "evaluate 7" not in found.calls


def test_a_row_with_an_evaluation_is_always_written(tmp_path: Path, log: MetricsLog) -> None:
    loop().run(tmp_path, log, "log_every=7", "sample_every=3")
    assert [row["step"] for row in rows(tmp_path)] == [3, 6, 7]


def test_another_process_only_trains(tmp_path: Path) -> None:
    found = loop(step=2)
    found.run(tmp_path, None)
    assert found.state.step == 7
    assert found.calls == []


class Stop(Guard):
    def stop(self, counts: StepCounts) -> str | None:
        return "stopped" if counts.step == 6 else None


class Reject(Guard):
    def reject(self, counts: StepCounts) -> str | None:
        return f"rejected after {counts.step}"


def test_a_guard_ends_the_run_once_its_row_is_written(tmp_path: Path, log: MetricsLog) -> None:
    found = loop(0, Guard(), Stop())
    with pytest.raises(TuningError, match=r"^stopped$"):
        found.run(tmp_path, log)
    assert found.calls == ["evaluate 2", "save 3", "evaluate 4"]  # no clips, no checkpoint of it
    assert rows(tmp_path)[-1] == {"step": 6}


def test_a_guard_rejects_a_run_that_has_made_its_steps(tmp_path: Path, log: MetricsLog) -> None:
    with pytest.raises(TuningError, match=r"^rejected after 7$"):
        loop(0, Reject()).run(tmp_path, log)
    assert rows(tmp_path)[-1]["step"] == 7


def ordered(folder: Path, **orders: int) -> Loop:
    """A loop that is given each order during the step of its number."""
    (folder / "control").mkdir()
    found = loop()
    found.control = Control(folder, Accelerator(cpu=True), lambda event: None)
    found.orders = {step: order_file(folder, order) for order, step in orders.items()}
    return found


def test_an_order_to_stop_saves_and_ends_the_run(tmp_path: Path, log: MetricsLog) -> None:
    found = ordered(tmp_path, stop=5)
    with pytest.raises(RunStopped, match="stopped after step 5 of 7"):
        found.run(tmp_path, log, "sample_every=0")
    assert found.calls == ["save 3", "save 5"]
    assert rows(tmp_path)[-1]["step"] == 4  # log_every is 2


def test_a_step_is_saved_once_where_a_checkpoint_is_due(tmp_path: Path, log: MetricsLog) -> None:
    found = ordered(tmp_path, stop=3)
    with pytest.raises(RunStopped):
        found.run(tmp_path, log, "sample_every=0")
    assert found.calls == ["save 3"]


def test_another_process_stops_without_saving(tmp_path: Path) -> None:
    found = ordered(tmp_path, stop=5)
    with pytest.raises(RunStopped):
        found.run(tmp_path, None)
    assert (found.calls, found.state.step) == ([], 5)


def test_an_order_to_sample_draws_clips_and_writes_their_row(
    tmp_path: Path, log: MetricsLog
) -> None:
    found = ordered(tmp_path, sample=5)
    found.run(tmp_path, log, "sample_every=0")
    assert found.calls == ["save 3", "evaluate 5", "save 6", "save 7"]
    assert {row["step"]: row.get("held_out") for row in rows(tmp_path)}[5] == 0.5


def test_a_guard_comes_before_an_order(tmp_path: Path, log: MetricsLog) -> None:
    found = ordered(tmp_path, stop=6)
    found.state.guards = (Stop(),)
    with pytest.raises(TuningError, match=r"^stopped$"):
        found.run(tmp_path, log)


@pytest.mark.parametrize(
    ("step", "every", "due"), [(3, 3, True), (4, 3, False), (7, 3, True), (6, 50, False)]
)
def test_something_is_due_now_and_then_and_at_the_end(step: int, every: int, due: bool) -> None:
    assert is_due(step, every, 7) == due


def test_rows_after_the_state_are_dropped_when_the_log_opens(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n')
    recipe = load_recipe(write_recipe(tmp_path), ["tracking=[]"])
    with metrics_log(folder, loop(step=2).state, Accelerator(), recipe) as log:
        assert log is not None
        log.write({"step": 3, "again": True})
    assert rows(tmp_path) == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]


def undone_at(step: int, one: Loop) -> None:
    """Let a step fail for a reason outside the run, after it has drawn from a global generator."""
    make = one.step

    def made() -> dict[str, Any]:
        torch.rand(1)
        if one.state.step + 1 == step:
            raise UndoneStep("no judge")
        return make()

    one.step = made  # type: ignore[method-assign]


@pytest.mark.parametrize("step", [6, 4])
def test_before_a_step_that_a_signal_ends_the_state_is_saved(
    tmp_path: Path, log: MetricsLog, step: int
) -> None:
    one = ordered(tmp_path)
    make = one.step

    def interrupted() -> dict[str, Any]:
        if one.state.step + 1 == step:
            raise StepInterrupted(signal.SIGTERM)
        return make()

    one.step = interrupted  # type: ignore[method-assign]
    with pytest.raises(StepInterrupted):
        one.run(tmp_path, log, "sample_every=0")
    assert one.calls == {6: ["save 3", "save 5"], 4: ["save 3"]}[step]


@pytest.mark.parametrize(
    ("step", "saves"),
    [
        (6, ["save 3", "save 5"]),  # the state before it, which was not saved
        (4, ["save 3"]),  # there is a checkpoint of it
        (1, []),  # every run begins with it
    ],
)
def test_before_a_step_that_cannot_be_made_the_state_is_saved(
    tmp_path: Path, log: MetricsLog, step: int, saves: list[str]
) -> None:
    one, states = loop(), []
    undone_at(step, one)
    save = one.save

    def saved() -> None:
        save()
        states.append(torch.get_rng_state())

    one.save = saved  # type: ignore[method-assign]
    torch.manual_seed(3)
    with pytest.raises(UndoneStep, match="no judge"):
        one.run(tmp_path, log)
    assert [call for call in one.calls if call.startswith("save")] == saves
    if step == 6:
        assert rows(tmp_path)[-1]["step"] == 4  # log_every=2
        torch.manual_seed(3)
        torch.rand(5)
        assert torch.equal(states[-1], torch.get_rng_state())
    others = loop()
    undone_at(step, others)
    with pytest.raises(UndoneStep):
        others.run(tmp_path, None)
    assert others.calls == []


def test_a_resumed_run_has_a_checkpoint_of_its_first_state(tmp_path: Path, log: MetricsLog) -> None:
    one = loop(5)
    undone_at(6, one)
    with pytest.raises(UndoneStep):
        one.run(tmp_path, log)
    assert "save 5" not in one.calls


def test_every_process_is_there_when_the_main_one_samples(tmp_path: Path, log: MetricsLog) -> None:
    main, other = loop(), loop()
    main.run(tmp_path / "main", log)
    other.run(tmp_path / "other", None)
    assert main.entered == other.entered == 3  # after steps 2, 4 and 6
    assert [call for call in other.calls if "evaluate" in call] == []


def test_memory_that_runs_out_for_the_whole_model_costs_no_step(
    tmp_path: Path, log: MetricsLog
) -> None:
    """Processes that share its weights gather them for sample clips."""

    @contextmanager
    def whole() -> Iterator[None]:
        raise torch.OutOfMemoryError("tried in vain")
        yield

    one = loop()
    one.whole = whole  # type: ignore[method-assign]
    with pytest.raises(MeasuringOutOfMemory, match="tried in vain"):
        one.run(tmp_path, log)
    assert one.calls == ["save 2"]
    assert one.state.left is not None
    assert (one.state.left.samples, one.state.left.written) == (True, False)


@pytest.mark.parametrize("stage", ["clips", "guards"])
def test_the_random_state_is_that_before_what_is_left(
    tmp_path: Path, log: MetricsLog, stage: str
) -> None:
    """A step draws once, and so do sample clips, as a judge may."""
    one, states = loop(), []

    def step() -> dict[str, Any]:
        torch.rand(1)
        return make()

    def evaluate() -> Mapping[str, Any]:
        torch.rand(1)
        if stage == "clips":
            raise torch.OutOfMemoryError("tried in vain")
        return {}

    def watch(row: Mapping[str, Any]) -> None:
        torch.rand(1)
        if one.state.step == 2:
            raise MeasuringOutOfMemory("tried in vain")

    make, one.step = one.step, step  # type: ignore[method-assign]
    one.evaluate, one.watch = evaluate, watch  # type: ignore[method-assign]
    one.save = lambda: states.append(torch.get_rng_state())  # type: ignore[method-assign]
    torch.manual_seed(3)
    with pytest.raises(MeasuringOutOfMemory):
        one.run(tmp_path, log)
    torch.manual_seed(3)
    torch.rand({"clips": 3, "guards": 4}[stage])  # two steps, the guards of one, and the clips
    (saved,) = states
    assert torch.equal(saved, torch.get_rng_state())
