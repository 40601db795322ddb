"""Which prompts leave the embedded world, or are cut: said, where it is that generator."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from base_model.tiny.captions import every_caption
from base_model.tiny.vocabulary import known_words, unknown_words
from reward_tuning.inputs.text_states import text_states
from reward_tuning.inputs.world_notes import world_notes
from reward_tuning.progress import ProgressEvent
from tests.reward_tuning.command_line import Command, command

run = pytest.fixture(command)
INSIDE = "A small red star moves left on a dark background"


def test_no_caption_of_the_world_leaves_it() -> None:
    captions = every_caption()
    assert not [caption for caption in captions if unknown_words(caption)]
    assert world_notes("tiny", captions[::37]) == []
    assert {"red", "star", "checkered", "rises", "红", "星"} <= known_words()


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (INSIDE, []),
        ("a cat on a sofa, a cat", ["cat", "sofa"]),
        ("a red star, 2 dogs", ["2", "dogs"]),
        ("一只猫在深色背景上", ["只猫"]),
        ("猫 a ROBOT 狗", ["猫", "robot", "狗"]),
        ("", []),
    ],
)
def test_words_that_no_caption_has(prompt: str, words: list[str]) -> None:
    assert unknown_words(prompt) == words


def test_a_note_names_the_words_and_the_world() -> None:
    (note,) = world_notes("tiny-camera", [INSIDE, "a cat", "a dog", "a cat"])
    assert "tiny-camera knows only moving shapes; 2 of 3 prompts contain other words" in note
    assert "'a cat' has cat" in note
    assert "red yellow green cyan blue purple; circle square triangle star; dark bright" in note
    assert len(note) < 600


def test_a_prompt_that_is_cut_is_told() -> None:
    long = "a large " + "red " * 40 + "star"
    (note,) = world_notes("tiny", [INSIDE, long])
    assert "tiny reads 36 tokens, its template included, and 1 of 2 prompts are longer" in note
    assert "a large red red" in note


@pytest.mark.parametrize("checkpoint", ["org/name", "/some/folder", "tiny/"])
def test_other_generators_know_other_words(checkpoint: str) -> None:
    assert world_notes(checkpoint, ["a cat"]) == []


def test_it_is_said_by_generate_and_where_a_run_encodes_its_prompts(
    run: Command, tmp_path: Path
) -> None:
    size = ("--frames", 1, "--height", 16, "--width", 16, "--steps", 1, "--guidance-scale", 1)
    ran = run("generate", "--prompt", "a cat", "--output", tmp_path / "a.png", *size)
    assert ran.code == 0
    assert ran.err.count("note: tiny knows only moving shapes") == 1
    events: list[ProgressEvent] = []
    text_states(
        "tiny",
        ["a cat", INSIDE, ""],
        dtype=torch.float32,
        device=torch.device("cpu"),
        folder=tmp_path / "cache",
        progress=events.append,
    )
    (note,) = [event.note for event in events if event.note]
    assert "1 of 2 prompts contain other words" in note
