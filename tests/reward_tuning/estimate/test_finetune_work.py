"""Memory and operations of a fine-tuning against real steps."""

from __future__ import annotations

import pytest
import torch
from accelerate import Accelerator

from benchmarks.peak_memory import peak_allocated
from benchmarks.small_shape import SMALL
from reward_tuning.estimate.finetune_parts import random_finetune_parts
from reward_tuning.estimate.finetune_work import FinetuneWork
from reward_tuning.estimate.phase_memory import GRADIENTS, OPTIMISER, TRANSFORMER, Followed, peak
from reward_tuning.evidence.any_recipe import load_any_recipe
from reward_tuning.finetune.recipe import FinetuneRecipe
from reward_tuning.finetune.trainer import finetune_step
from reward_tuning.runs.training_state import initial_state

FIXED = ("adapter", "transformer", "decoder", "optimiser")
STEP = ("clips", "gradient", "update")
ONE = ("train.gradient_accumulation=1", "train.batch_size=2", "data.metadata=nowhere.json")
SIZE = ("data.sides=[64]", "data.frames=5", "data.tokens=null")


def recipe_of(name: str, *overrides: str) -> FinetuneRecipe:
    recipe = load_any_recipe(name, [*ONE, *SIZE, *overrides], check_files=False)
    assert isinstance(recipe, FinetuneRecipe)
    return recipe


LORA = recipe_of("finetune/easyanimate-v5.1-7b-lora", "generator.dtype=float32", "data.held_out=1")
WHOLE = recipe_of("finetune/stage-4-13312-i2v", "train.autocast=null", "data.draw_frames=false")


@pytest.mark.parametrize("recipe", [LORA, WHOLE], ids=["an adapter", "every weight"])
def test_the_peak_is_what_a_real_step_allocates(recipe: FinetuneRecipe) -> None:
    """By the CPU allocator's own account, beyond what it held before the step."""
    work = FinetuneWork(recipe, SMALL)
    memory = {phase: of for phase, of in work.follow(cpu=True).memory.items() if phase in STEP}
    assert set(memory) == set(STEP)
    phase, size = peak(memory)
    held = sum(memory[phase].get(part, 0.0) for part in FIXED)
    (batch,) = work.clips.largest
    parts = random_finetune_parts(recipe, SMALL, torch.device("cpu"), batch, None)
    state, accelerator = initial_state(recipe.train, parts.trained, []), Accelerator(cpu=True)
    finetune_step(recipe, parts, state, accelerator)  # makes the optimiser's moments

    def step() -> None:
        finetune_step(recipe, parts, state, accelerator)

    allocated = peak_allocated(step, torch.device("cpu"))
    assert size - held == pytest.approx(allocated, rel=0.1)


def test_every_trained_weight_has_a_gradient_and_moments() -> None:
    memory = FinetuneWork(WHOLE, SMALL).follow(cpu=True).memory
    weights = memory["update"][TRANSFORMER]
    assert memory["update"][GRADIENTS] == pytest.approx(weights, rel=0.02)  # buffers have none
    assert memory["update"][OPTIMISER] == pytest.approx(3 * weights, rel=0.02)
    assert "samples" not in memory
    assert "adapter" not in memory["update"]


def test_measurements_of_held_out_clips() -> None:
    """The base, two in between, and the end; the main process makes them alone."""
    recipe = recipe_of(
        "finetune/easyanimate-v5.1-7b-lora",
        *("data.held_out=3", "samples.count=2", "samples.steps=5", "train.steps=10"),
        "train.sample_every=5",
    )
    seen = Followed(
        {}, {("held-out", "rest"): 7.0, ("samples", "both"): 20.0, ("samples", "decoder"): 3.0}
    )
    once = 3 * 7 + 2 * (20 / 2 * 5 + 3)
    work = FinetuneWork(recipe, SMALL)
    assert work.evaluation(seen, 1) == work.evaluation(seen, 8) == 4 * once
    memory = work.follow(cpu=True).memory
    assert {"held-out", "samples"} <= set(memory)


def test_operations_of_a_step() -> None:
    """A backward pass to an adapter costs about what the forward pass costs."""
    work = FinetuneWork(recipe_of("finetune/easyanimate-v5.1-7b-lora"), SMALL)
    found = work.step()
    assert found.total == pytest.approx(2 * sum(found.rows.values()))
    assert found.rows["recomputed"] == pytest.approx(found.rows["forward"], rel=0.1)
    assert 0.8 < found.rows["backward"] / found.rows["forward"] < 1.5
    assert found.rows["clips encoded"] > 0
    assert found.rows["other"] == 0
    twice = recipe_of("finetune/easyanimate-v5.1-7b-lora", "train.gradient_accumulation=2")
    assert FinetuneWork(twice, SMALL).step().total == pytest.approx(2 * found.total)
