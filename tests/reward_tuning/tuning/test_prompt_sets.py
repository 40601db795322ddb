"""Prompts of a run: the training stream, and the first held-out ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.tuning.prompt_sets import held_out_prompts, training_prompts
from tests.reward_tuning.tiny_run import HELD_OUT, TRAIN, tiny_recipe, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


def test_both_sets_are_those_of_their_files(world: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(world, tmp_path, "evaluation.prompts=2")
    stream = training_prompts(recipe)
    assert [prompt.text for prompt in stream.prompts] == TRAIN
    order = [stream.prompt_at(i).text for i in range(len(TRAIN))]
    other = training_prompts(tiny_recipe(world, tmp_path, "seed=9"))
    assert sorted(order) == sorted(TRAIN)
    assert order != [other.prompt_at(i).text for i in range(len(TRAIN))]
    assert [prompt.text for prompt in held_out_prompts(recipe)] == HELD_OUT[:2]


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (1, "evaluation.prompts: got 1; needs at least 2"),
        (4, "evaluation.prompts: got 4, but prompts.held_out has 3; set evaluation.prompts=3"),
    ],
)
def test_too_few_prompts(world: Path, tmp_path: Path, count: int, told: str) -> None:
    with pytest.raises(TuningError) as caught:
        held_out_prompts(tiny_recipe(world, tmp_path, f"evaluation.prompts={count}"))
    assert str(caught.value).startswith(told)
