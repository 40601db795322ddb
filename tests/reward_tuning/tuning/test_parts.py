"""Parts of a run: what is loaded, and from which keys of the recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reward_tuning.progress import silent
from reward_tuning.tuning.parts import load_parts
from tests.reward_tuning.tiny_run import HELD_OUT, tiny_recipe, write_world

DEVICE = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


def test_only_the_prompts_of_the_run_are_encoded(world: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(world, tmp_path)
    parts = load_parts(recipe, DEVICE, 2, silent)
    assert len(parts.sampler.states) == 2 + len(HELD_OUT) + 1
    assert parts.sampler.generator.prompt_encoder is None
