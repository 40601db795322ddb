"""One optimiser step of any training, against AdamW by hand."""

from __future__ import annotations

import math
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from reward_tuning.progress import ProgressEvent
from reward_tuning.runs.guards import finetune_guards
from reward_tuning.runs.out_of_memory import PhaseOutOfMemory, StepOutOfMemory
from reward_tuning.runs.signals import (
    WAITING,
    StepInterrupted,
    keep_signal,
    signals_wait,
)
from reward_tuning.runs.training_state import Trained, TrainingState, initial_state
from reward_tuning.runs.update import Average, PhaseClock, StepMeans, take_step
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.sections import TrainSection
from tests.reward_tuning.recipes_for_tests import write_recipe

GRADIENT = (3.0, -4.0)  # of norm 5
WARMED_UP = 3e-4 / 4


def section(folder: Path, *overrides: str) -> TrainSection:
    settings = ["train.warmup_steps=4", "train.max_grad_norm=1.0", *overrides]
    return load_recipe(write_recipe(folder), settings).train


def begun(train: TrainSection) -> tuple[nn.Parameter, Trained, TrainingState]:
    weight = nn.Parameter(torch.zeros(2))
    trained = Trained([weight], lambda: {"w": weight.detach()}, lambda state: None)
    return weight, trained, initial_state(train, trained, finetune_guards(train))


class Step:
    """A step of a given loss and gradient, and what it told."""

    def __init__(self, train: TrainSection, loss: float, gradient: tuple[float, ...]) -> None:
        self.train, self.loss, self.gradient = train, loss, gradient
        self.events: list[ProgressEvent] = []
        self.further: Later | None = None

    def backward(self, clock: PhaseClock, shown: dict[str, float]) -> Average:
        (weight,) = self.trained.parameters
        assert weight.grad is None  # that of the step before is gone
        with clock("sweep"):
            weight.grad = torch.tensor(self.gradient)
        shown["so far"] = 1.0
        return lambda: StepMeans(
            self.loss,
            {"loss": self.loss},
            {"own": 7},
            lambda: "why",
            self.train.max_grad_norm,
            self.further,
        )

    def take(self, trained: Trained, state: TrainingState) -> dict:
        self.trained = trained
        with torch.random.fork_rng(devices=[]):
            return take_step(
                self.train, trained, state, Accelerator(), self.events.append, self.backward, 6
            )


def test_a_step_is_clipped_and_taken_with_the_rate_of_the_schedule(tmp_path: Path) -> None:
    train = section(tmp_path)
    weight, trained, state = begun(train)
    row = Step(train, 0.5, GRADIENT).take(trained, state)
    expected = nn.Parameter(torch.zeros(2))
    optimiser = torch.optim.AdamW([expected], lr=WARMED_UP, eps=train.adam_eps, weight_decay=0.0)
    expected.grad = torch.tensor(GRADIENT) / 5
    optimiser.step()
    assert weight.detach().tolist() == pytest.approx(expected.detach().tolist(), rel=1e-5)
    assert row["grad_norm"] == pytest.approx(5.0)
    assert row["learning_rate"] == pytest.approx(WARMED_UP)
    assert (row["step"], row["loss"], row["own"], row["bad_steps"]) == (1, 0.5, 7, 0)
    assert (state.step, state.position, state.idle_steps) == (1, 6, 0)


def test_the_row_has_the_times_of_its_phases(tmp_path: Path) -> None:
    train = section(tmp_path)
    _, trained, state = begun(train)
    step = Step(train, 0.5, GRADIENT)
    row = step.take(trained, state)
    phases = {k: v for k, v in row["seconds"].items() if k != "step"}
    assert list(phases) == ["sweep", "update"]
    assert row["seconds"]["step"] == pytest.approx(sum(phases.values()))
    assert row["memory"]["sweep"] > 10_000_000  # this process
    told = [(event.done, event.phase, dict(event.metrics)) for event in step.events]
    # one dictionary is shown during the step, so the first event has the later number, too
    assert told == [
        (0, "sweep", {"so far": 1.0}),
        (0, "update", {"so far": 1.0}),
        (1, "", {"loss": 0.5}),
    ]


@pytest.mark.parametrize(
    ("loss", "gradient", "name"),
    [
        (math.nan, GRADIENT, "the loss is nan"),
        (0.5, (math.inf, 0.0), "the gradient's norm is inf"),
    ],
)
def test_what_is_not_finite_changes_no_weight_and_counts(
    tmp_path: Path, loss: float, gradient: tuple[float, ...], name: str
) -> None:
    train = section(tmp_path, "train.ema_decay=0.5")
    weight, trained, state = begun(train)
    step = Step(train, loss, gradient)
    step.take(trained, state)
    assert weight.tolist() == [0.0, 0.0]
    assert state.optimiser.state == {}
    assert state.ema is not None
    assert state.ema.updates == 0
    assert (state.step, state.position, state.bad_steps, state.bad_in_a_row) == (1, 6, 1, 1)
    assert [event.note for event in step.events if event.note] == [f"step 1 skipped: {name}"]
    Step(train, 0.5, GRADIENT).take(trained, state)
    assert (state.bad_steps, state.bad_in_a_row, state.ema.updates) == (1, 0, 1)
    assert weight.abs().min() > 0


def test_a_gradient_of_zero_is_counted(tmp_path: Path) -> None:
    train = section(tmp_path)
    _, trained, state = begun(train)
    step = Step(train, 0.5, (0.0, 0.0))
    for _ in range(5):
        step.take(trained, state)
    assert (state.idle_steps, state.bad_steps) == (5, 0)
    (note,) = (event.note for event in step.events if event.note)
    assert note.endswith("the gradient is zero. why")


def keep(number: signal.Signals) -> None:
    assert keep_signal(number, lambda: None)


def test_a_signal_ends_a_step_before_its_next_phase_and_nothing_has_changed(
    tmp_path: Path,
) -> None:
    train = section(tmp_path, "train.ema_decay=0.5")
    weight, trained, state = begun(train)
    told: list[str] = []

    def backward(clock: PhaseClock, shown: dict[str, float]) -> Average:
        with clock("rollout"):
            keep(signal.SIGTERM)
            told.append("rolled out")  # the phase goes on to its end
        with clock("reward"):
            told.append("judged")
        raise AssertionError

    accelerator = Accelerator()
    with signals_wait(tells=False), pytest.raises(StepInterrupted) as interrupted:
        take_step(train, trained, state, accelerator, lambda event: None, backward, 6)
    assert interrupted.value.number == signal.SIGTERM
    assert told == ["rolled out"]
    assert weight.tolist() == [0.0, 0.0]
    assert (state.step, state.position, state.optimiser.state) == (0, 0, {})


def test_memory_that_runs_out_before_the_update_changes_nothing(tmp_path: Path) -> None:
    train = section(tmp_path)
    weight, trained, state = begun(train)

    def backward(clock: PhaseClock, shown: dict[str, float]) -> Average:
        with clock("sweep"):
            raise torch.OutOfMemoryError("tried in vain")

    with pytest.raises(StepOutOfMemory, match="in the phase sweep of step 1: tried in vain"):
        take_step(train, trained, state, Accelerator(), lambda event: None, backward, 6)
    assert weight.tolist() == [0.0, 0.0]
    assert (state.step, state.position) == (0, 0)


def test_memory_that_runs_out_in_the_update_is_no_undone_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights may be half changed, so that nothing may be saved."""
    train = section(tmp_path)
    _, trained, state = begun(train)

    def half(closure: object = None) -> None:
        raise torch.OutOfMemoryError("tried in vain")

    monkeypatch.setattr(state.optimiser, "step", half)
    with pytest.raises(PhaseOutOfMemory) as failed:
        Step(train, 0.5, GRADIENT).take(trained, state)
    assert failed.value.phase == "update"


@pytest.mark.parametrize("phase", ["sweep", "update"])
def test_a_signal_ends_no_step_that_has_begun_to_change_the_weights(
    tmp_path: Path, phase: str
) -> None:
    train = section(tmp_path)
    weight, trained, state = begun(train)
    step = Step(train, 0.5, GRADIENT)
    step.further = Later(weight, (0.0, 0.5))

    def progress(event: ProgressEvent) -> None:
        step.events.append(event)
        if event.phase == phase and any(seen.phase == "update" for seen in step.events):
            keep(signal.SIGINT)

    step.trained = trained
    with signals_wait(tells=False):
        take_step(train, trained, state, Accelerator(), progress, step.backward, 6)
        assert WAITING.number == signal.SIGINT
    assert [event.phase for event in step.events] == ["sweep", "update"] * 2 + [""]
    assert state.step == 1


class Later:
    """Further updates of given gradients."""

    def __init__(self, weight: nn.Parameter, *gradients: tuple[float, ...]) -> None:
        self.weight, self.gradients = weight, list(gradients)

    def gradient(self, clock: PhaseClock) -> bool:
        assert self.weight.grad is None
        if not self.gradients:
            return False
        with clock("sweep"):
            self.weight.grad = torch.tensor(self.gradients.pop(0))
        return True

    def columns(self, norms: Sequence[float]) -> dict:
        return {"further": list(norms)}


def test_further_updates_are_steps_of_the_optimiser_within_one_step(tmp_path: Path) -> None:
    train = section(tmp_path, "train.ema_decay=0.5")
    weight, trained, state = begun(train)
    step = Step(train, 0.5, GRADIENT)
    step.further = Later(weight, (0.0, 0.5), (2.0, 0.0))
    row = step.take(trained, state)
    expected = nn.Parameter(torch.zeros(2))
    optimiser = torch.optim.AdamW([expected], lr=WARMED_UP, eps=train.adam_eps, weight_decay=0.0)
    average, path = torch.zeros(2), []
    for number, gradient in enumerate(((0.6, -0.8), (0.0, 0.5), (1.0, 0.0))):
        expected.grad = torch.tensor(gradient)
        optimiser.step()
        decay = min(0.5, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * expected.detach()
        path.append(expected.detach().clone())
    assert torch.allclose(weight, path[-1], rtol=1e-5)
    assert not torch.allclose(path[0], path[-1], rtol=1e-2)
    assert state.ema is not None
    assert torch.allclose(state.ema.state["w"], average, rtol=1e-5)
    assert row["further"] == pytest.approx([0.5, 2.0])
    assert row["grad_norm"] == pytest.approx(5.0)
    assert (state.step, state.position, state.ema.updates) == (1, 6, 3)
    assert [event.phase for event in step.events] == ["sweep", "update"] * 3 + [""]


def test_a_further_gradient_that_is_not_finite_ends_them_and_nothing_else(tmp_path: Path) -> None:
    train = section(tmp_path)
    weight, trained, state = begun(train)
    step = Step(train, 0.5, GRADIENT)
    step.further = Later(weight, (math.nan, 0.0), (2.0, 0.0))
    row = step.take(trained, state)
    plain, plainly, other = begun(train)
    Step(train, 0.5, GRADIENT).take(plainly, other)
    assert torch.equal(weight, plain)
    assert row["further"] == []
    assert (state.step, state.bad_steps) == (1, 0)
    assert len(step.further.gradients) == 1


def test_a_step_that_is_skipped_has_no_further_updates(tmp_path: Path) -> None:
    train = section(tmp_path)
    weight, trained, state = begun(train)
    step = Step(train, math.nan, GRADIENT)
    step.further = Later(weight, (2.0, 0.0))
    assert step.take(trained, state)["further"] == []
    assert weight.tolist() == [0.0, 0.0]
    assert len(step.further.gradients) == 1


def test_clock_adds_up_and_tells() -> None:
    told: list[str] = []
    clock = PhaseClock(torch.device("cpu"), told.append)
    kept = []
    for _ in range(2):
        with clock("rollout"):
            kept.append(torch.ones(200_000).sum())
        kept.append(torch.tensor(clock.seconds["rollout"]))
    assert told == ["rollout", "rollout"]
    assert kept[3] > kept[1] > 0
