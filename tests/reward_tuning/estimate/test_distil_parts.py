"""Parts of a distillation that train at any size."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from benchmarks.small_shape import SMALL
from reward_tuning.distil.recipe import DistilRecipe
from reward_tuning.distil.trainer import distil_step
from reward_tuning.estimate.distil_parts import random_distil_parts
from reward_tuning.evidence.any_recipe import load_any_recipe
from reward_tuning.runs.training_state import initial_state


def test_a_step_with_values() -> None:
    overrides = [
        *("student.frames=1", "student.height=32", "student.width=32", "train.batch_size=2"),
        *("generator.dtype=float32", "train.gradient_accumulation=1"),
        *("evaluation.held_out_rewards.0.frames=1", "evaluation.held_out_rewards.1.frames=1"),
    ]
    recipe = load_any_recipe("distil/easyanimate-v5.1-7b-4-steps", overrides, check_files=False)
    assert isinstance(recipe, DistilRecipe)
    parts = random_distil_parts(recipe, SMALL, torch.device("cpu"))
    assert [judge.label for judge in parts.judges] == ["hps_held_out", "clip_held_out"]
    row = distil_step(
        recipe, parts, initial_state(recipe.train, parts.trained, []), Accelerator(cpu=True)
    )
    assert row["grad_norm"] > 0
    assert list(row["loss_by_phase"]) == ["1", "2", "3"]
