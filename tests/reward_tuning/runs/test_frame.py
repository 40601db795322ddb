"""The frame, with a training as small as can be: two weights that follow numbered gradients."""

from __future__ import annotations

import json
import random
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from reward_tuning.errors import TuningError
from reward_tuning.progress import ProgressEvent, ProgressFn, silent
from reward_tuning.runs import frame
from reward_tuning.runs.checkpoints import checkpoint_steps
from reward_tuning.runs.control import ORDERS, RunStopped, order_file
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.frame import RunResult, run_training
from reward_tuning.runs.guards import finetune_guards
from reward_tuning.runs.metrics import MetricsLog
from reward_tuning.runs.out_of_memory import MeasuringOutOfMemory, OutOfMemory
from reward_tuning.runs.shared_weights import SharedWeights
from reward_tuning.runs.signals import keep_signal
from reward_tuning.runs.status import is_alive, read_status
from reward_tuning.runs.trackers import TRACKERS
from reward_tuning.runs.training_state import Trained, TrainingState, initial_state
from reward_tuning.runs.update import Average, PhaseClock, StepMeans, take_step
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from reward_tuning.seeds import derive_generator
from tests.reward_tuning.recipes_for_tests import write_recipe
from tests.reward_tuning.runs.listening_tracker import Listener


@dataclass
class Toy:
    """A training that draws its gradients by number."""

    recipe: Recipe
    folder: RunFolder
    accelerator: Accelerator
    progress: ProgressFn
    fingerprints: dict[str, str]
    calls: list[str] = field(default_factory=list)
    fails_in: str = ""
    draws_a_step = (3, "pebbles")
    weights = SharedWeights(None, "resident")

    def __post_init__(self) -> None:
        self.weight = nn.Parameter(torch.zeros(2))
        self.trained = Trained([self.weight], lambda: {"w": self.weight.detach()}, self.load)

    @torch.no_grad()
    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        self.weight.copy_(state["w"])

    def describe_fingerprint(self, name: str) -> str:
        return f"shape of {name}"

    def prepare(self, *, resume: bool) -> None:
        assert self.folder.recipe.is_file()  # the run has begun
        self.calls.append(f"prepare, resume={resume}")

    def initial_state(self) -> TrainingState:
        train = self.recipe.train
        return initial_state(train, self.trained, finetune_guards(train))

    def before(self, state: TrainingState, log: MetricsLog | None) -> None:
        assert log is not None
        self.calls.append(f"before step {state.step}")

    def step(self, state: TrainingState) -> dict[str, Any]:
        def backward(clock: PhaseClock, shown: dict[str, float]) -> Average:
            draw = derive_generator(self.recipe.seed, "toy", state.position)
            with clock("gradient"):
                if self.fails_in == "gradient":
                    raise torch.OutOfMemoryError("tried in vain")
                self.weight.grad = torch.randn(2, generator=draw)

            def average() -> StepMeans:
                if self.fails_in == "update":
                    raise MemoryError("tried in vain")
                return StepMeans(1.0, {}, {}, lambda: "", None)

            return average

        train = self.recipe.train
        return take_step(train, self.trained, state, self.accelerator, self.progress, backward, 3)

    def evaluate(self, state: TrainingState) -> Mapping[str, Any]:
        return {"size": float(self.weight.detach().norm())}

    def watch(self, state: TrainingState, row: Mapping[str, Any], log: MetricsLog | None) -> None:
        assert row["step"] == state.step

    def ended(self) -> bool:
        return False

    def finish(self, state: TrainingState, log: MetricsLog | None) -> dict[str, Any]:
        self.calls.append(f"finish after {state.step}")
        found = {"weight": self.weight.tolist()}
        self.folder.evaluation.write_text(json.dumps(found))
        return found


class Bench:
    """Runs of one recipe in one folder."""

    def __init__(self, folder: Path) -> None:
        self.place = folder
        self.fingerprints = {"pebbles": "sha256:1"}
        self.toys: list[Toy] = []

    def run(
        self, *overrides: str, resume: bool = False, progress: ProgressFn = silent
    ) -> RunResult:
        settings = [
            f"output={self.place / 'run'}",
            "train.steps=4",
            "train.checkpoint_every=2",
            "train.sample_every=3",
            *overrides,
        ]
        recipe = load_recipe(write_recipe(self.place / "recipe"), settings)
        folder = RunFolder(recipe.output)

        def load(accelerator: Accelerator, report: ProgressFn) -> Toy:
            self.toys.append(Toy(recipe, folder, accelerator, report, self.fingerprints))
            return self.toys[-1]

        return run_training(folder, recipe, recipe.train, load, resume=resume, progress=progress)


class StoppedError(Exception):
    pass


def stop_at(step: int) -> ProgressFn:
    def progress(event: ProgressEvent) -> None:
        if (event.stage, event.done, event.phase) == ("training", step, "update"):
            raise StoppedError

    return progress


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_run_from_its_recipe_to_its_last_file(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[bool] = []
    monkeypatch.setattr(frame, "leave_at_exit", lambda: left.append((tmp_path / "run").is_dir()))
    result = bench.run()
    assert left == [True]
    assert (result.folder, result.steps) == (tmp_path / "run", 4)
    assert bench.toys[0].calls == ["prepare, resume=False", "before step 0", "finish after 4"]
    assert result.evaluation == {"weight": bench.toys[0].weight.tolist()}
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [("size" in row, row["step"]) for row in rows] == [
        (False, 1),
        (False, 2),
        (True, 3),
        (False, 4),
    ]
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == [
        "step-000002",
        "step-000004",
    ]


def test_a_resumed_run_ends_as_one_that_never_stopped(bench: Bench, tmp_path: Path) -> None:
    straight = Bench(tmp_path / "straight").run()
    notes: list[str] = []
    with pytest.raises(StoppedError):
        bench.run(progress=stop_at(3))
    resumed = bench.run(resume=True, progress=lambda event: notes.append(event.note))
    assert bench.toys[1].calls == ["prepare, resume=True", "before step 2", "finish after 4"]
    assert resumed.evaluation == straight.evaluation
    assert "continuing after step 2" in notes


def test_a_finished_run_is_returned_without_loading(bench: Bench) -> None:
    first = bench.run()
    assert bench.run(resume=True) == first
    assert len(bench.toys) == 1
    more = bench.run("train.steps=6", resume=True)
    assert more.steps == 6
    assert more.evaluation != first.evaluation


@pytest.mark.parametrize("step", [1, 3])
def test_a_second_run_and_one_of_other_content_are_refused(bench: Bench, step: int) -> None:
    """Before the first checkpoint, which is that of step 2, as well as after it."""
    with pytest.raises(StoppedError):
        bench.run(progress=stop_at(step))
    with pytest.raises(TuningError, match="holds a run already"):
        bench.run()
    bench.fingerprints = {"pebbles": "sha256:2"}
    with pytest.raises(TuningError, match="shape of pebbles: was sha256:1, is sha256:2"):
        bench.run(resume=True)


def test_a_run_that_cannot_be_loaded_leaves_no_folder(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path / "recipe"), [f"output={tmp_path / 'run'}"])

    def load(accelerator: Accelerator, report: ProgressFn) -> Toy:
        raise TuningError("no such pebbles")

    folder = RunFolder(recipe.output)
    with pytest.raises(TuningError, match="no such pebbles"):
        run_training(folder, recipe, recipe.train, load, resume=False, progress=silent)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_removed_ends_the_run(bench: Bench, tmp_path: Path) -> None:
    def remove(event: ProgressEvent) -> None:
        if (event.done, event.phase) == (2, "update"):
            (tmp_path / "run").rename(tmp_path / "moved")

    with pytest.raises(TuningError, match="was moved or removed while the run worked in it"):
        bench.run(progress=remove)
    assert not (tmp_path / "run").exists()


def test_an_order_stops_a_run_and_resume_ends_as_if_it_had_not(
    bench: Bench, tmp_path: Path
) -> None:
    straight = Bench(tmp_path / "straight").run()

    def ask(event: ProgressEvent) -> None:
        if (event.done, event.phase) == (2, "update"):
            order_file(tmp_path / "run", "stop").parent.mkdir()
            order_file(tmp_path / "run", "stop").touch()

    with pytest.raises(RunStopped, match=f"resume with: reward-tuning resume {tmp_path}/run"):
        bench.run(progress=ask)
    status = read_status(tmp_path / "run")
    assert status is not None
    assert (status["state"], status["step"], status["steps"]) == ("stopped", 3, 4)
    assert "stopped after step 3 of 4" in status["message"]
    for order in ORDERS:  # left by somebody while nothing ran
        order_file(tmp_path / "run", order).touch()
    resumed = bench.run(resume=True)
    assert bench.toys[1].calls == ["prepare, resume=True", "before step 3", "finish after 4"]
    assert resumed.evaluation == straight.evaluation
    assert list((tmp_path / "run/control").iterdir()) == []


@pytest.mark.parametrize(
    ("phase", "number", "name", "saved"),
    [
        ("gradient", signal.SIGTERM, "SIGTERM", 3),  # the step at work is given up
        ("update", signal.SIGINT, "Ctrl-C", 4),  # ends with it
    ],
)
def test_a_signal_stops_a_run_and_resume_ends_as_if_it_had_not(
    bench: Bench, tmp_path: Path, phase: str, number: signal.Signals, name: str, saved: int
) -> None:
    straight = Bench(tmp_path / "straight").run("train.steps=6")

    def send(event: ProgressEvent) -> None:
        if (event.stage, event.done, event.phase) == ("training", 3, phase):
            assert keep_signal(number, lambda: None)

    told = f"stopped after step {saved} of 6, as {name} asked; resume with: reward-tuning resume "
    with pytest.raises(RunStopped, match=told) as stopped:
        bench.run("train.steps=6", progress=send)
    assert stopped.value.number == number
    assert (tmp_path / f"run/checkpoints/step-{saved:06d}").is_dir()
    status = read_status(tmp_path / "run")
    assert status is not None
    assert (status["state"], status["step"]) == ("stopped", saved)
    resumed = bench.run("train.steps=6", resume=True)
    assert bench.toys[1].calls[1:] == [f"before step {saved}", "finish after 6"]
    assert resumed.evaluation == straight.evaluation


@pytest.mark.parametrize(("phase", "saved"), [("gradient", [2, 3]), ("update", [2])])
def test_a_run_out_of_memory_goes_on_with_less_and_ends_as_if_it_had_not(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str, saved: list[int]
) -> None:
    monkeypatch.setattr(frame, "on_cuda", lambda accelerator: False)  # a GPU has more to change
    straight = Bench(tmp_path / "straight").run()
    armed = True

    def run_out(event: ProgressEvent) -> None:
        nonlocal armed
        if armed and (event.stage, event.done, event.phase) == ("training", 3, phase):
            armed = False
            bench.toys[-1].fails_in = phase

    with pytest.raises(OutOfMemory) as failed:
        bench.run(progress=run_out)
    lines = str(failed.value).splitlines()
    assert re.match(rf"out of memory in .*phase {phase}.*: tried in vain", lines[0])
    assert lines[1] == (
        "less memory for the same run: train.decoder_checkpointing=segments, "
        "train.gradient_checkpointing=true"
    )
    assert lines[-1] == f"see what fits: reward-tuning estimate {tmp_path}/run/recipe.yaml"
    assert checkpoint_steps(tmp_path / "run/checkpoints") == saved
    notes: list[str] = []
    resumed = bench.run(
        "train.gradient_checkpointing=true",
        resume=True,
        progress=lambda event: notes.append(event.note),
    )
    assert resumed.evaluation == straight.evaluation
    change = "train.gradient_checkpointing: False -> True"
    assert f"changed since the run began: {change}; the numbers stay the same" in notes
    assert "gradient_checkpointing: true" in (tmp_path / "run/recipe.yaml").read_text()
    starts = [
        json.loads(line) for line in (tmp_path / "run/machine.jsonl").read_text().splitlines()
    ]
    assert [row["recipe"]["train.gradient_checkpointing"] for row in starts] == [False, True]


def test_trackers_lack_nothing_of_a_step_after_which_memory_ran_out(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number and those before it come once each, also where it is the first."""
    calls: list[tuple[int, list[str]]] = []

    class Tracker(Listener):
        def log(self, step: int, scalars: Mapping[str, float]) -> None:
            calls.append((step, sorted(name for name in scalars if name in ("loss", "size"))))

    monkeypatch.setitem(TRACKERS, "tensorboard", Tracker)
    evaluate = Toy.evaluate

    def fails(toy: Toy, state: TrainingState) -> Mapping[str, Any]:
        raise torch.OutOfMemoryError("tried in vain")

    keys = ("train.sample_every=1", "tracking=[tensorboard]")
    monkeypatch.setattr(Toy, "evaluate", fails)
    with pytest.raises(OutOfMemory, match="out of memory in training 1/4: tried in vain"):
        bench.run(*keys)
    assert checkpoint_steps(tmp_path / "run/checkpoints") == [1]
    assert not (tmp_path / "run/metrics.jsonl").exists()
    monkeypatch.setattr(Toy, "evaluate", evaluate)
    bench.run(*keys, resume=True)
    both = ["loss", "size"]
    assert calls == [(1, both), (2, both), (3, both), (4, ["loss"])]


@pytest.mark.parametrize("more", [(), ("train.steps=4",)], ids=["as before", "more steps"])
def test_clips_of_a_last_step_are_due_where_a_resumed_run_has_more(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    """Memory ran out in the guards of the last step, whose clips its end would have made."""

    def rows(place: Path) -> list[dict[str, Any]]:
        lines = (place / "run/metrics.jsonl").read_text().splitlines()
        return [{**json.loads(line), "seconds": None, "memory": None} for line in lines]

    def fails(*given: Any) -> None:
        if given[1].step == 2:
            raise MeasuringOutOfMemory("tried in vain")

    keys = ("train.steps=2", "train.sample_every=2")
    Bench(tmp_path / "straight").run(*keys, *more)
    with monkeypatch.context() as patch, pytest.raises(OutOfMemory):
        patch.setattr(Toy, "watch", fails)
        bench.run(*keys)
    assert ["size" in row for row in rows(tmp_path)] == [False, False]
    bench.run(*keys, *more, resume=True)
    assert rows(tmp_path) == rows(tmp_path / "straight")
    assert ("size" in rows(tmp_path)[1]) == bool(more)


@pytest.mark.parametrize("jump", [-400 * 86400.0, 400 * 86400.0])
def test_a_clock_that_jumps_changes_no_number_and_no_state(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    straight = Bench(tmp_path / "straight").run()
    now, apart = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: now() + apart)
    seen = []

    def progress(event: ProgressEvent) -> None:
        nonlocal apart
        if (event.stage, event.done, event.phase) == ("training", 2, "update"):
            apart = jump
        seen.append(read_status(tmp_path / "run"))

    assert bench.run(progress=progress).evaluation == straight.evaluation
    status = read_status(tmp_path / "run")
    assert status is not None
    assert (status["state"], is_alive(status)) == ("finished", True)
    rates = [one["seconds_per_step"] for one in seen if one and one["seconds_per_step"]]
    assert all(0 <= rate < 60 for rate in rates)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert all(0 <= row["seconds"]["step"] < 60 for row in rows)


def test_before_the_steps_and_after_them_a_signal_is_not_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []
    for name in ("prepare", "before", "finish"):
        method = getattr(Toy, name)

        def look(*given: Any, method: Any = method, name: str = name, **more: Any) -> Any:
            kept.append((name, keep_signal(signal.SIGTERM, lambda: None)))
            return method(*given, **more)

        monkeypatch.setattr(Toy, name, look)
    bench.run()
    assert kept == [("prepare", False), ("before", False), ("finish", False)]


def test_a_run_begins_with_generators_of_its_seed(bench: Bench, tmp_path: Path) -> None:
    """So that a judge that draws from them sees the same where the run is begun anew."""
    drawn = []

    def draw(event: ProgressEvent) -> None:
        if (event.stage, event.done, event.phase) == ("training", 0, "update"):
            drawn.append((torch.rand(1).item(), random.random(), np.random.rand()))

    bench.run(progress=draw)
    Bench(tmp_path / "other").run(progress=draw)
    assert drawn[0] == drawn[1]
    assert len({*drawn[0]}) == 3


def test_the_status_of_a_run_while_it_trains_and_after_it(bench: Bench, tmp_path: Path) -> None:
    seen = []

    def look(event: ProgressEvent) -> None:
        if (event.stage, event.done) == ("training", 3):
            seen.append(read_status(tmp_path / "run"))

    bench.run(progress=look)
    status = seen[-1]
    assert status is not None
    assert (status["state"], status["stage"], status["steps"]) == ("running", "training", 4)
    assert is_alive(status)
    status = read_status(tmp_path / "run")
    assert status is not None
    assert (status["state"], status["step"]) == ("finished", 4)


def test_a_refused_run_leaves_the_status_of_the_one_that_is_there(
    bench: Bench, tmp_path: Path
) -> None:
    bench.run()
    before = (tmp_path / "run/status.json").read_bytes()
    with pytest.raises(TuningError, match="holds a run already"):
        bench.run()
    bench.run(resume=True)
    assert (tmp_path / "run/status.json").read_bytes() == before


def test_a_stopped_run_continues_in_its_trackers(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb, mlflow = pytest.importorskip("wandb"), pytest.importorskip("mlflow")
    from reward_tuning.runs.wandb_log import records

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    wandb.teardown()
    with pytest.raises(StoppedError):  # the checkpoint is that of step 2
        bench.run("tracking=[wandb]", progress=stop_at(3))
    notes: list[str] = []
    bench.run(
        "tracking=[wandb, mlflow]", resume=True, progress=lambda event: notes.append(event.note)
    )
    place = tmp_path / "run/tracking"
    steps = [
        record.history.step.num
        for path in sorted(place.glob("wandb/offline-run-*/run-*.wandb"))
        for record in records(path)
        if record.WhichOneof("record_type") == "history"
    ]
    assert steps == [1, 2, 3, 4]
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{place}/mlflow.db")
    run = client.get_run(json.loads((place / "ids.json").read_text())["mlflow"]["run"])
    # The rows before the checkpoint, which it never saw, come from metrics.jsonl.
    assert [p.step for p in client.get_metric_history(run.info.run_id, "loss")] == [1, 2, 3, 4]
    assert run.info.status == "FINISHED"
    assert run.data.params["train.steps"] == "4"
    assert [note.split(":")[1] for note in notes if note.startswith("tracking")] == [
        " wandb",
        " mlflow",
    ]


def test_a_run_without_trackers_writes_no_files_of_theirs(bench: Bench, tmp_path: Path) -> None:
    bench.run("tracking=[]")
    assert not list((tmp_path / "run").glob("events.out.*"))
    assert not (tmp_path / "run/tracking").exists()
    assert (tmp_path / "run/metrics.jsonl").is_file()
