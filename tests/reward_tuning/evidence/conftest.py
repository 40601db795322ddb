"""A finished run of two steps that every test of the room evaluates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reward_tuning.tuning.trainer import run
from tests.reward_tuning.tiny_run import tiny_recipe, write_world

OVERRIDES = ("train.steps=2", "train.checkpoint_every=1", "evaluation.clips=0")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REWARD_TUNING_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def finished(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run: two steps, three held-out prompts, two clips each."""
    recipe = tiny_recipe(world, tmp_path_factory.mktemp("runs") / "first", *OVERRIDES)
    return run(recipe).folder
