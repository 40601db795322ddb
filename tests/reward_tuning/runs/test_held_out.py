"""Held-out prompts and clips that are also trained on: counted, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.inputs.prompts import Prompt, read_prompts
from reward_tuning.runs.held_out import shared_files, shared_prompts
from reward_tuning.tuning.trainer import run
from tests.reward_tuning.tiny_run import tiny_recipe, write_world

SHORT = ("evaluation.prompts=2", "evaluation.seeds=1", "train.checkpoint_every=50")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARD_TUNING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield write_world(tmp_path_factory.mktemp("world"))


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
