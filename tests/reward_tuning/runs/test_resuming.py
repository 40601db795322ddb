"""A state restored from its newest intact checkpoint, or a refusal that says what has changed."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from reward_tuning.errors import TuningError
from reward_tuning.progress import ProgressEvent
from reward_tuning.runs import resuming
from reward_tuning.runs.folder import RunFolder
from reward_tuning.runs.resumable import versions
from reward_tuning.runs.resuming import content_differences, newest_intact, restore_state
from reward_tuning.runs.training_state import Trained, TrainingState, initial_state, save_state
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from tests.reward_tuning.recipes_for_tests import write_recipe

HASHES = {"hps": "sha256:1", "prompts.train": "sha256:2"}


class Run:
    """A run of one weight, in a folder."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        settings = [f"output={folder / 'run'}", "train.ema_decay=0.5", *overrides]
        self.recipe: Recipe = load_recipe(write_recipe(folder), settings)
        self.folder = RunFolder(self.recipe.output)
        self.weight = nn.Parameter(torch.zeros(3))
        self.trained = Trained([self.weight], lambda: {"w": self.weight.detach()}, self.load)
        self.state: TrainingState = initial_state(self.recipe.train, self.trained, [])
        self.notes: list[str] = []

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        self.weight.copy_(state["w"])

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.weight.grad = torch.ones(3)
            self.state.optimiser.step()
            assert self.state.ema is not None
            self.state.ema.update(self.trained.state())
            self.state.step += 1
            self.state.position += 4

    def save(self) -> None:
        train = self.recipe.train
        save_state(self.state, train, self.trained, self.recipe, HASHES, self.folder)

    def restore(self, hashes: Mapping[str, str] = HASHES, draws: int = 4) -> None:
        def note(event: ProgressEvent) -> None:
            self.notes.append(event.note)

        restore_state(
            self.state,
            self.trained,
            self.recipe,
            hashes,
            self.folder,
            draws_a_step=(draws, "clips"),
            describe_fingerprint=lambda name: f"weights of {name}",
            progress=note,
        )


@pytest.fixture
def begun(tmp_path: Path) -> Run:
    run = Run(tmp_path)
    run.folder.begin(run.recipe, HASHES)
    return run


def test_everything_is_restored(begun: Run, tmp_path: Path) -> None:
    begun.train(3)
    begun.state.bad_steps, begun.state.bad_in_a_row, begun.state.idle_steps = 3, 2, 1
    random.seed(5)
    begun.save()
    expected = random.random()
    again = Run(tmp_path)
    again.restore()
    assert torch.equal(again.weight, begun.weight)
    assert again.state.optimiser.state_dict()["state"][0]["step"] == 3
    assert again.state.ema is not None and begun.state.ema is not None
    assert torch.equal(again.state.ema.state["w"], begun.state.ema.state["w"])
    assert (again.state.step, again.state.position, again.state.ema.updates) == (3, 12, 3)
    counts = (again.state.bad_steps, again.state.bad_in_a_row, again.state.idle_steps)
    assert counts == (3, 2, 1)
    assert random.random() == expected
    assert again.notes == []


def test_without_a_checkpoint_the_start_stays_and_the_content_is_compared(
    begun: Run, tmp_path: Path
) -> None:
    begun.restore()
    assert begun.state.step == 0
    with pytest.raises(TuningError, match="weights of hps: was sha256:1, is sha256:9"):
        begun.restore({**HASHES, "hps": "sha256:9"})


@pytest.mark.parametrize(
    ("overrides", "hashes", "draws", "told"),
    [
        (("train.learning_rate=0.5",), {}, 4, r"train\.learning_rate: was 0\.0003, is 0\.5"),
        ((), {"hps": "sha256:9"}, 4, "weights of hps: was sha256:1, is sha256:9"),
        ((), {"mps": "sha256:3"}, 4, "weights of mps: was None, is sha256:3"),
        ((), {}, 8, "clips a step on all processes: was 4, is 8"),
        (("train.steps=2",), {}, 4, "train.steps: got 2, but the run has made 3 steps"),
    ],
)
def test_what_has_changed_is_refused(
    begun: Run,
    tmp_path: Path,
    overrides: tuple[str, ...],
    hashes: dict[str, str],
    draws: int,
    told: str,
) -> None:
    begun.train(3)
    begun.save()
    again = Run(tmp_path, *overrides)
    with pytest.raises(TuningError, match=told):
        again.restore({**HASHES, **hashes}, draws)
    assert again.state.step == 0
    assert again.weight.tolist() == [0.0] * 3


def test_a_damaged_checkpoint_is_passed_over_with_a_note(begun: Run, tmp_path: Path) -> None:
    for _ in range(2):
        begun.train(1)
        begun.save()
    (begun.folder.checkpoints / "step-000002" / "optimiser.pt").write_bytes(b"")
    again = Run(tmp_path)
    again.restore()
    assert again.state.step == 1
    assert again.notes[0].endswith("; using the one before it")
    (begun.folder.checkpoints / "step-000001" / "optimiser.pt").write_bytes(b"")
    with pytest.raises(TuningError, match=r"no other checkpoint is intact.*delete .*checkpoints"):
        newest_intact(begun.folder)


def test_other_libraries_are_a_note(
    begun: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun.train(1)
    begun.save()
    monkeypatch.setattr(resuming, "versions", lambda: {**versions(), "peft": "99.0"})
    again = Run(tmp_path)
    again.restore()
    assert again.state.step == 1
    (note,) = again.notes
    assert f"peft {versions()['peft']} -> 99.0" in note


def test_differences_of_content_are_listed_by_what_they_are_of() -> None:
    kept, now = {"a": "1", "b": "2"}, {"a": "1", "c": "3"}
    assert content_differences(kept, now, str.upper) == [
        "B: was 2, is None",
        "C: was None, is 3",
    ]
