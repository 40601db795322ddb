"""Parts of a run: what is loaded, and from which keys of the recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from base_model.sampling.guidance import Guidance
from reward_tuning.progress import silent
from reward_tuning.tuning.parts import load_parts
from reward_tuning.tuning.replay_clips import origin
from reward_tuning.tuning.replay_sources import ReplaySource
from reward_tuning.tuning.sigma_tables import evaluation_sigmas
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


def test_training_and_its_clips_have_intervals_of_their_own(world: Path, tmp_path: Path) -> None:
    intervals = ("sampling.guidance_steps=[0.3,1]", "evaluation.guidance_steps=[0.2,0.9]")
    recipe = tiny_recipe(world, tmp_path, *intervals, "sampling.guidance_rescale=0.5")
    sampler = load_parts(recipe, DEVICE, 2, silent).sampler
    assert sampler.guidance == Guidance(3.0, 0.5, (0.3, 1.0))
    assert sampler.latents_guidance == Guidance(3.0, 0.5, (0.2, 0.9))
    sources = [ReplaySource("a cat")]
    kept = [
        origin(one, sources, evaluation_sigmas(one), "hash")
        for one in (recipe, tiny_recipe(world, tmp_path, "sampling.guidance_rescale=0.5"))
    ]
    assert kept[0] != kept[1]  # clips of the base would be others
