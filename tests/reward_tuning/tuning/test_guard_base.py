"""What the guards keep of the base; with a real evaluation in test_guard_evaluation.py."""

from __future__ import annotations

from pathlib import Path

import torch

from reward_tuning.schema.loading import load_recipe
from reward_tuning.tuning.guard_base import read_base, save_base, settings
from reward_tuning.tuning.guard_evaluation import GuardScores
from tests.reward_tuning.recipes_for_tests import write_recipe


def test_scores_read_back_to_the_bit(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path))
    found = GuardScores({"clip": [0.1, 1 / 3], "motion": [2e-9, 3.0]}, [0.7], {1: torch.rand(2)})
    save_base(tmp_path / "base", found, recipe)
    kept = read_base(tmp_path / "base", recipe)
    assert kept is not None
    assert (kept.values, kept.diversity) == (found.values, found.diversity)
    assert list(kept.latents) == [1]
    assert torch.equal(kept.latents[1], found.latents[1])


def test_actions_and_bounds_do_not_matter(tmp_path: Path) -> None:
    one = load_recipe(write_recipe(tmp_path))
    two = load_recipe(write_recipe(tmp_path), ["guards.drift.high=9", "guards.motion=off"])
    assert settings(one) == settings(two)
