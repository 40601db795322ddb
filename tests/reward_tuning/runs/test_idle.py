"""What trains nothing is told once, with its cause, and is no finished run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.finetune.step import training_loss
from reward_tuning.finetune.trainer import finetune
from reward_tuning.inputs.prompts import Prompt, read_prompts
from reward_tuning.runs.held_out import shared_files, shared_prompts
from reward_tuning.runs.idle import IdleWatch
from reward_tuning.tuning.trainer import run
from tests.reward_tuning.finetune.clip_folder import small_recipe, write_world_of_clips
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


def test_it_is_told_once_and_only_after_some_steps_in_a_row() -> None:
    watch = IdleWatch()
    idle = [True] * 4 + [False] + [True] * 12
    told = [watch.see(step, lambda: "why") for step in idle]
    assert [i for i, note in enumerate(told) if note] == [9]
    assert told[9] == "5 steps in a row trained nothing: the gradient is zero. why"


# --- equal prompts


def test_held_out_prompts_that_are_trained_on(world: Path, tmp_path: Path) -> None:
    train = read_prompts(world / "train.txt")
    copied = tmp_path / "copied.txt"
    copied.write_text("A  red ball\na blue cube\n", encoding="utf-8")  # case and spaces aside
    with pytest.raises(TuningError, match=r"all 2 prompts of the evaluation are in prompts\.train"):
        run(tiny_recipe(world, tmp_path / "run", f"prompts.held_out={copied}", *SHORT))
    assert not (tmp_path / "run").exists()
    some = [*train[:2], Prompt("something else", "something else")]
    assert "2 of 3 prompts of the evaluation are trained on, too" in shared_prompts(train, some)
    assert shared_prompts(train, read_prompts(world / "held.txt")) == ""


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("caf\u00e9", "CAFE\u0301", True),
        ("a red ball, rolling.", "A red ball \u2013 rolling", True),
        ("don't", "don\u2019t", True),
        ("\u7ea2\u7403\uff0c\u6eda\u52a8\u3002", "\u7ea2\u7403 \u6eda\u52a8", True),
        ("\uff52\uff45\uff44", "red", True),
        ("a \U0001f431", "a \U0001f436", False),
        ("!", "?", False),
        ("a red ball", "a redball", False),
    ],
)
def test_prompts_in_another_spelling_are_equal(one: str, other: str, same: bool) -> None:
    spare = Prompt("something else", "something else")
    found = shared_prompts([Prompt(one, one)], [Prompt(other, other), spare])
    assert bool(found) == same


def test_prompts_that_differ_in_what_they_follow_are_others(tmp_path: Path) -> None:
    rows = '{{"prompt": "it moves", "camera": "{}"}}\n'
    for name, camera in (("train", "pan left"), ("held", "zoom in")):
        (tmp_path / f"{name}.jsonl").write_text(rows.format(camera))
    train, held_out = (read_prompts(tmp_path / f"{n}.jsonl") for n in ("train", "held"))
    assert shared_prompts(train, held_out) == ""
    with pytest.raises(TuningError, match="nothing is held out"):
        shared_prompts(train, train)


def test_held_out_clips_that_are_trained_on(tmp_path: Path) -> None:
    """Equal by content, under any name."""
    for name, content in (("a", b"one"), ("copy", b"one"), ("b", b"two"), ("c", b"three")):
        (tmp_path / name).write_bytes(content)
    a, copy, b, c = (tmp_path / name for name in ("a", "copy", "b", "c"))
    assert shared_files([a, b], [c]) == ""
    assert shared_files([a, b], [copy, c]).startswith("1 of 2 held-out clips is trained on, too")
    with pytest.raises(TuningError, match="all 1 held-out clips are among those to train on"):
        shared_files([a, b], [copy])
    assert shared_files([a], []) == ""
