"""Memory and operations of a distillation against a real step, and by arithmetic."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from benchmarks.peak_memory import peak_allocated
from benchmarks.small_shape import SMALL
from reward_tuning.distil.recipe import DistilRecipe
from reward_tuning.distil.trainer import distil_step
from reward_tuning.estimate.distil_parts import random_distil_parts
from reward_tuning.estimate.distil_work import DistilWork
from reward_tuning.estimate.phase_memory import Followed, peak
from reward_tuning.evidence.any_recipe import load_any_recipe
from reward_tuning.runs.training_state import initial_state

FIXED = ("adapter", "transformer", "decoder", "judges", "optimiser")
SMALL_CLIP = (
    *("student.frames=5", "student.height=64", "student.width=64", "generator.dtype=float32"),
    *("evaluation.held_out_rewards.0.frames=1", "evaluation.held_out_rewards.1.frames=1"),
    *("evaluation.held_out_rewards.0.dtype=float32", "train.gradient_accumulation=1"),
    *("evaluation.held_out_rewards.1.dtype=float32", "train.batch_size=2"),
)


def recipe_of(*overrides: str) -> DistilRecipe:
    recipe = load_any_recipe(
        "distil/easyanimate-v5.1-7b-4-steps", [*SMALL_CLIP, *overrides], check_files=False
    )
    assert isinstance(recipe, DistilRecipe)
    return recipe


@pytest.mark.slow
def test_the_peak_is_what_a_real_step_allocates() -> None:
    recipe = recipe_of("train.gradient_checkpointing=false")
    memory = DistilWork(recipe, SMALL).follow(cpu=True).memory
    assert list(memory) == ["text", "gradient", "update", "evaluation"]
    phase, size = peak({name: memory[name] for name in ("gradient", "update")})
    held = sum(memory[phase].get(part, 0.0) for part in FIXED)
    parts = random_distil_parts(recipe, SMALL, torch.device("cpu"))
    state, accelerator = initial_state(recipe.train, parts.trained, []), Accelerator(cpu=True)
    distil_step(recipe, parts, state, accelerator)  # makes the optimiser's moments

    def step() -> None:
        distil_step(recipe, parts, state, accelerator)

    allocated = peak_allocated(step, torch.device("cpu"))
    assert size - held == pytest.approx(allocated, rel=0.05)


@pytest.mark.slow
def test_operations_of_a_step() -> None:
    """The teacher runs 3 phases of 6 steps with two branches, the student a pass in each phase."""
    found = DistilWork(recipe_of("train.gradient_accumulation=3", "lora.rank=1"), SMALL).step()
    assert found.total == pytest.approx(2 * 3 * sum(found.rows.values()))
    passes = found.rows["teacher"] / found.rows["student forward"]
    assert 0.9 * 6 * 2 < passes < 6 * 2  # the student also computes the adapter's products
    assert found.rows["student recomputed"] == pytest.approx(found.rows["student forward"], rel=0.1)
    assert found.rows["other"] == 0


def test_the_sides_of_an_evaluation() -> None:
    """100 operations of two guided steps and 9 of decoder and judges, for four clips at once."""
    seen = Followed({}, {("evaluation", "both"): 100.0, ("evaluation", "decoder"): 9.0})
    overrides = ("evaluation.batch_size=4", "evaluation.prompts=8", "evaluation.steps=20")
    few = DistilWork(recipe_of(*overrides, "evaluation.few_steps=false"), SMALL)
    base, student = 20 * 50, 4 * 25
    assert few.evaluation(seen, 1) == (base + student + 2 * 9) / 4 * 8
    all_sides = DistilWork(recipe_of(*overrides), SMALL)
    every = base + student + 4 * 25 + 4 * 50 + 4 * 9
    assert all_sides.evaluation(seen, 1) == every / 4 * 8
    assert all_sides.evaluation(seen, 3) == every / 4 * 3
