"""Sigma tables: the shifted one of the training rollouts, the published one of the evaluation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from base_model.sampling.sigmas import sigma_table
from reward_tuning.errors import TuningError
from reward_tuning.tuning.sigma_tables import (
    check_intervals,
    evaluation_sigmas,
    guard_sigmas,
    training_sigmas,
)
from tests.reward_tuning.tiny_run import tiny_recipe, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


def test_only_the_training_table_is_shifted(world: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(world, tmp_path, "sampling.steps=8", "sampling.shift=2.0")
    assert torch.equal(training_sigmas(recipe), sigma_table(8, 2.0))
    assert torch.equal(evaluation_sigmas(recipe), sigma_table(8))
    assert not torch.equal(sigma_table(8, 2.0), sigma_table(8))


def test_the_evaluation_may_take_more_steps(world: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(world, tmp_path, "evaluation.steps=11")
    assert len(evaluation_sigmas(recipe)) == 12
    assert len(training_sigmas(recipe)) == recipe.sampling.steps + 1


def test_strength_leaves_the_last_part_of_both_tables(world: Path, tmp_path: Path) -> None:
    """Of 8 steps the pipeline runs int(8 * 0.5) = 4, of 6 steps 3."""
    recipe = tiny_recipe(
        world, tmp_path, "sampling.steps=8", "evaluation.steps=6", "sampling.strength=0.5"
    )
    assert torch.equal(training_sigmas(recipe), sigma_table(8)[4:])
    assert torch.equal(evaluation_sigmas(recipe), sigma_table(6)[3:])


def test_the_guards_take_the_training_steps_or_their_own(world: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(world, tmp_path, "sampling.steps=8", "evaluation.steps=11")
    assert torch.equal(guard_sigmas(recipe), sigma_table(8))
    fewer = tiny_recipe(world, tmp_path, "guards.steps=6", "sampling.strength=0.5")
    assert torch.equal(guard_sigmas(fewer), sigma_table(6)[3:])


def test_an_interval_of_guidance_must_have_a_step(world: Path, tmp_path: Path) -> None:
    """Four steps have the levels 1, 0.845, 0.577 and 0.003, three 1, 0.731 and 0.003."""
    few = "evaluation.steps=3"
    for fits in ("sampling.guidance_steps=[0.8,0.9]", "evaluation.guidance_steps=[0.7,0.8]"):
        check_intervals(tiny_recipe(world, tmp_path, few, fits))
    for misses, told in (
        ("sampling.guidance_steps=[0.7,0.8]", "1, 0.845, 0.577, 0.00271;"),
        ("evaluation.guidance_steps=[0.8,0.9]", "1, 0.731, 0.00271;"),
    ):
        key = misses.partition("=")[0]
        with pytest.raises(TuningError, match=f"{key}: got .*noise levels {told}"):
            check_intervals(tiny_recipe(world, tmp_path, few, misses))
