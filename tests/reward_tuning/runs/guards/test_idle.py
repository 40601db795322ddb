"""What trains nothing is told once, with its cause, and is no finished run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.finetune.step import training_loss
from reward_tuning.finetune.trainer import finetune
from reward_tuning.runs.guards.idle import Idle
from reward_tuning.tuning.trainer import run
from tests.reward_tuning.finetune.clip_folder import small_recipe, write_world_of_clips
from tests.reward_tuning.runs.guards.steps import Counts, facts
from tests.reward_tuning.tiny_run import tiny_recipe, write_world

SHORT = ("evaluation.prompts=2", "evaluation.seeds=1", "train.checkpoint_every=50")
COARSE = """
class Coarse:
    def __call__(self, frames, prompts):
        return (frames - frames.detach() + 0.5).round().mean((1, 2, 3, 4))
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARD_TUNING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield write_world(tmp_path_factory.mktemp("world"))


def refused(world: Path, output: Path, *overrides: str) -> tuple[str, list[str]]:
    """Of a run that trains nothing: the error and the warnings."""
    notes: list[str] = []
    with pytest.raises(TuningError) as found:
        run(
            tiny_recipe(world, output, *SHORT, *overrides),
            progress=lambda event: notes.append(event.note),
        )
    return str(found.value), [note for note in notes if "trained nothing" in note]


def test_a_hinge_that_is_reached(world: Path, tmp_path: Path) -> None:
    judge = f"rewards.0={{kind: clip, checkpoint: {world}/judge/flat.safetensors, target: -0.9}}"
    told, notes = refused(world, tmp_path / "run", judge)
    assert told.startswith("no step of 6 trained anything: 6 had a gradient of zero; nothing is ex")
    assert "The hinge is reached: every clip's score is at its target (clip -0." in told
    assert "of -0.9" in told
    assert len(notes) == 1
    assert notes[0].startswith("5 steps in a row trained nothing")
    assert not (tmp_path / "run" / "lora").exists()
    with pytest.raises(TuningError, match="no step of 6 trained anything"):
        run(tiny_recipe(world, tmp_path / "run", *SHORT, judge), resume=True)


def test_a_judge_without_gradient(world: Path, tmp_path: Path) -> None:
    file = tmp_path / "coarse.py"
    file.write_text(COARSE)
    judge = f"rewards.0={{kind: python, checkpoint: {file}, name: coarse}}"
    told, notes = refused(world, tmp_path / "run", "train.steps=2", judge)
    assert "The scores of coarse do not change with the frames" in told
    assert notes == []  # the error says it


def test_a_fine_tuning_without_gradient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "reward_tuning.finetune.trainer.training_loss",
        lambda *arguments, **options: 0.0 * training_loss(*arguments, **options),
    )
    clips = write_world_of_clips(tmp_path / "clips")
    settings = ("train.steps=1", "samples.count=0")
    with pytest.raises(TuningError, match=r"no step of 1 .*flow\.most_error"):
        finetune(small_recipe(clips, tmp_path / "fine", *settings))


def test_steps_that_are_all_skipped(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer than train.max_bad_steps, which ends a run earlier."""
    monkeypatch.setattr(
        "reward_tuning.tuning.trainer.mean_over_ranks", lambda *_: {"loss": math.nan, "motion": 0.0}
    )
    with pytest.raises(TuningError, match=r"no step of 2 .*: 2 were skipped for NaN or infinity"):
        run(tiny_recipe(world, tmp_path / "run", "train.steps=2", *SHORT))


def test_it_warns_once_and_only_after_some_steps_in_a_row() -> None:
    guard = Idle()
    idle = [True] * 4 + [False] + [True] * 12
    told = [guard.warn(facts(grad_norm=0.0 if step else 1.0)) for step in idle]
    assert [i for i, note in enumerate(told) if note] == [9]
    assert told[9] == "5 steps in a row trained nothing: the gradient is zero. why"


def test_a_step_that_was_skipped_is_not_idle() -> None:
    guard = Idle()
    assert not any(guard.warn(facts(grad_norm=0.0, taken=False)) for _ in range(10))


@pytest.mark.parametrize(
    ("bad_steps", "idle_steps", "told"),
    [
        (1, 1, None),
        (3, 0, "no step of 3 trained anything: 3 were skipped for NaN or infinity"),
        (0, 3, "no step of 3 trained anything: 3 had a gradient of zero; nothing is exported"),
        (1, 2, "or use generator.dtype float32 instead of half precision) and 2 had a gradient"),
    ],
)
def test_a_run_that_trained_nothing_is_rejected(
    bad_steps: int, idle_steps: int, told: str | None
) -> None:
    found = Idle().reject(Counts(3, bad_steps=bad_steps, idle_steps=idle_steps))
    assert (found is None) == (told is None)
    assert told is None or told in str(found)
