"""Memory by phase against what a real step allocates, and along the blocks."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from accelerate import Accelerator

from benchmarks.peak_memory import peak_allocated
from benchmarks.small_shape import SMALL, SMALL_CLIP
from reward_tuning.estimate.phase_memory import (
    ADAPTER,
    GRADIENTS,
    OPTIMISER,
    PHASES,
    TRANSFORMER,
    Followed,
    along,
    largest_of_each,
    peak,
    phase_memory,
)
from reward_tuning.estimate.random_parts import random_parts
from reward_tuning.estimate.step_parts import TRANSFORMER as TRANSFORMER_PARTS
from reward_tuning.estimate.stored import EVALUATION
from reward_tuning.estimate.tuning_work import follow_step
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.trainer import optimiser_step, start

STEP = ("rollout", "reward", "sweep", "update")
FIXED = ("adapter", "transformer", "decoder", "judges", "optimiser")


def small(*overrides: str) -> Recipe:
    plain = ["generator.dtype=float32", "rewards.0.dtype=float32", "sampling.steps=5"]
    every = [*SMALL_CLIP, *plain, "train.gradient_accumulation=1", "method.active_steps=2"]
    return load_recipe("easyanimate-v5.1-7b-hps", [*every, *overrides], check_files=False)


@cache
def of_small(*overrides: str) -> Followed:
    recipe = small(*overrides)
    return along(lambda of: follow_step(recipe, of, 0, cpu=True), SMALL)


@pytest.mark.parametrize(
    "overrides",
    [
        ("train.keep_graphs=0", "sampling.frames=5", "sampling.height=64", "sampling.width=64"),
        ("train.keep_graphs=2", "train.gradient_checkpointing=false", "sampling.height=64"),
    ],
)
def test_the_peak_is_what_a_real_step_allocates(overrides: tuple[str, ...]) -> None:
    """By the CPU allocator's own account, beyond what it held before the step."""
    recipe = small(*overrides)
    memory = {phase: of_small(*overrides).memory[phase] for phase in STEP}
    phase, size = peak(memory)
    held = sum(memory[phase].get(part, 0.0) for part in FIXED)
    parts = random_parts(recipe, SMALL, torch.device("cpu"))
    state, accelerator = start(recipe, parts), Accelerator(cpu=True)
    optimiser_step(recipe, parts, state, accelerator)  # makes the optimiser's moments
    state.step = state.position = 0

    def step() -> None:
        optimiser_step(recipe, parts, state, accelerator)

    allocated = peak_allocated(step, torch.device("cpu"))
    assert size - held == pytest.approx(allocated, rel=0.05)


def test_every_phase_and_what_is_trained() -> None:
    memory = of_small().memory
    assert list(memory) == [phase for phase in PHASES if phase in memory]
    assert {"rollout", "reward", "sweep", "update", "evaluation"} <= set(memory)
    parts = random_parts(small(), SMALL, torch.device("meta"))
    trained = sum(one.nbytes for one in parts.trained.parameters)
    for phase in ("rollout", "sweep", "evaluation"):
        assert memory[phase][ADAPTER] == trained
        assert 2 * trained <= memory[phase][OPTIMISER] <= 3.1 * trained  # moments, and the average
    assert memory["update"][GRADIENTS] == pytest.approx(trained, rel=0.01)


@pytest.mark.slow
def test_the_line_through_few_blocks_is_the_memory_of_all() -> None:
    recipe, shape = small("train.keep_graphs=1"), SMALL.with_blocks(4, 3)
    line = along(lambda of: follow_step(recipe, of, 0, cpu=True), shape).memory
    whole = follow_step(recipe, shape, 0, cpu=True)
    for phase in ("rollout", "reward", "sweep", "update", "evaluation"):
        every = sum(size for (of, _, what), size in whole.items() if (of, what) == (phase, ""))
        assert sum(line[phase].values()) == pytest.approx(every, rel=0.01), phase


@pytest.mark.slow
def test_a_gradient_that_waits_is_held_by_every_phase() -> None:
    recipe = small("train.keep_graphs=0")
    alone, waiting = (
        along(lambda of, one=one: follow_step(recipe, of, 0, cpu=True, waiting=one), SMALL).memory  # type: ignore[misc]
        for one in (False, True)
    )
    for phase in ("rollout", "reward"):
        assert alone[phase].get(GRADIENTS, 0.0) == 0
        assert waiting[phase][GRADIENTS] == waiting[phase][ADAPTER]
    assert waiting["evaluation"].get(GRADIENTS, 0.0) == 0


@pytest.mark.slow
def test_a_kept_graph_is_held_while_the_judges_work() -> None:
    none, one = of_small("train.keep_graphs=0").memory, of_small("train.keep_graphs=1").memory
    assert sum(one["reward"].values()) > sum(none["reward"].values())


@pytest.mark.slow
def test_operations_of_an_evaluation() -> None:
    seen = of_small("evaluation.batch_size=2")
    one = of_small("evaluation.batch_size=1")

    def sampled(of: Followed) -> float:
        return of.operations(EVALUATION, TRANSFORMER_PARTS)

    assert sampled(seen) == pytest.approx(2 * sampled(one), rel=1e-2)
    judged = one.operations_but(EVALUATION, TRANSFORMER_PARTS)
    assert 0 < judged < seen.operations_but(EVALUATION, TRANSFORMER_PARTS)
    assert judged + sampled(one) == sum(n for (of, _), n in one.work.items() if of == EVALUATION)


def test_the_recipes_modes_change_only_the_weights() -> None:
    seen = of_small()
    recipe = small("generator.memory=offload")
    gpu = phase_memory(recipe.generator, SMALL, seen.memory, gpus=1, rows=1)
    assert gpu["rollout"]["judges"] == gpu["rollout"]["decoder"] == 0
    assert gpu["rollout"][TRANSFORMER] == seen.memory["rollout"][TRANSFORMER]
    assert phase_memory(recipe.generator, SMALL, seen.memory, gpus=0, rows=1) == seen.memory


def test_each_phase_where_it_needs_most() -> None:
    one = {"clips": {"activations": 5.0}, "gradient": {"activations": 1.0}}
    other = {"clips": {"activations": 2.0, "decoder": 2.0}, "gradient": {"activations": 3.0}}
    assert largest_of_each([one, other]) == {
        "clips": {"activations": 5.0},
        "gradient": {"activations": 3.0},
    }
