"""Who is compared with whom, and how the numbers are made."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from base_model.sampling.sigmas import sigma_table
from benchmarks.against_published_loop import arms_of, growth, ratios
from benchmarks.contestants import COMMON, LIKE_THE_SCRIPT, RECIPE, SAMPLING_STEPS, Arm
from benchmarks.machine import cpu_model, machine
from benchmarks.peak_memory import peak_allocated
from benchmarks.score_race import ARMS, Run, best_run
from benchmarks.time_to_score import Point
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from reward_tuning.tuning.draws import draw_frames
from reward_tuning.tuning.plan_draws import draw_plan


def recipe_of(arm: Arm) -> Recipe:
    return load_recipe(RECIPE, [*COMMON, *arm.overrides])


def test_one_gradient_in_both_loops() -> None:
    published, checkpointed, same, *_ = arms_of(10)
    assert recipe_of(published) == recipe_of(same)
    assert (published.published, checkpointed.published, same.published) == (True, True, False)
    recipe = recipe_of(same)
    assert recipe.sampling.negative == "joint"
    plan = draw_plan(recipe, sigma_table(SAMPLING_STEPS), step=1, batch=0)
    assert plan.active == tuple(range(15, 25))
    assert plan.through == plan.active  # what is not chosen is detached
    assert (plan.nested, plan.gradient_scale) == (1.0, 1.0)


def test_the_published_settings() -> None:
    train = recipe_of(arms_of(10)[0]).train
    assert (train.weight_decay, train.adam_eps, train.max_grad_norm) == (0.03, 1e-10, 0.3)
    assert (train.betas, train.warmup_steps, train.ema_decay) == ((0.9, 0.999), 0, None)


@pytest.mark.parametrize("k", [1, 4, 10, 25])
def test_the_recipes_method_with_another_number_of_steps(k: int) -> None:
    shipped = load_recipe(RECIPE, [*COMMON, *LIKE_THE_SCRIPT])
    same, same_kept, ours, four_at_once, kept, four_kept = arms_of(k)[2:]
    assert recipe_of(same_kept).train.keep_graphs == recipe_of(kept).train.keep_graphs == k
    assert recipe_of(same_kept).method == recipe_of(same).method
    both = recipe_of(four_kept).train
    assert (both.keep_graphs, both.steps_at_once) == (k, 4)
    recipe = recipe_of(ours)
    assert recipe_of(four_at_once).train.steps_at_once == 4
    assert recipe.train == shipped.train
    assert draw_frames(recipe, step=1, batch=0) == (0,)
    assert recipe.sampling == shipped.sampling
    assert (recipe.method.kind, shipped.method.kind) == ("drtune", "drtune")
    plan = draw_plan(recipe, sigma_table(SAMPLING_STEPS), step=1, batch=0)
    assert len(plan.active) == k
    assert plan.reward_input == "end"


def test_the_race_has_the_scripts_strategies_and_the_recipe_as_it_is() -> None:
    strategies = {
        recipe.method.strategy: recipe.method.active_steps
        for recipe in map(recipe_of, ARMS)
        if recipe.method.kind == "easyanimate"
    }
    assert strategies == {"tail": 10, "uniform": 5, "last": 1}
    assert recipe_of(ARMS[-1]) == load_recipe(RECIPE, COMMON)
    steps = {recipe.sampling.steps for recipe in map(recipe_of, ARMS[:-1])}
    assert steps == {SAMPLING_STEPS}
    sizes = {recipe_of(arm).train.batch_size for arm in ARMS}
    assert len(sizes) == 1


def test_the_best_of_each_loop_is_chosen() -> None:
    def run(arm: Arm, rate: float, *scores: float) -> Run:
        points = [Point(i, i, i, {"hps": score}) for i, score in enumerate(scores)]
        return Run(arm, rate, 0, points)

    theirs, ours = ARMS[0], ARMS[-1]
    grid = [run(theirs, 1.0, 0.0, 3.0, 1.0), run(theirs, 2.0, 0.0, 2.0), run(ours, 1.0, 0.0, 9.0)]
    assert best_run(grid, True) is grid[0]
    assert best_run(grid, False) is grid[2]


def test_ours_over_each_published_arm() -> None:
    got = ratios({"published a": 4.0, "published b": 2.0, "ours a": 1.0, "ours c": 8.0})
    assert got == {
        "ours a": {"published a": 0.25, "published b": 0.5},
        "ours c": {"published a": 2.0, "published b": 4.0},
    }


def test_growth_from_the_first_k_to_the_last() -> None:
    first = {"published tail-1": 2.0, "ours tail-1, checkpointed": 5.0}
    last = {"published tail-25": 50.0, "ours tail-25, checkpointed": 5.5}
    assert growth(first, last) == {
        "published tail": 25.0,
        "ours tail, checkpointed": pytest.approx(1.1),
    }


def test_peak_allocated_counts_what_is_alive_at_once() -> None:
    size = 4_000_000

    def chain() -> None:
        x = torch.ones(size // 4, requires_grad=True)
        for _ in range(10):
            x = x.sin()  # saves its input

    def loop() -> None:
        x = torch.ones(size // 4)
        for _ in range(10):
            x = x.sin()

    assert peak_allocated(chain, torch.device("cpu")) == pytest.approx(11 * size, rel=0.01)
    assert peak_allocated(loop, torch.device("cpu")) == pytest.approx(2 * size, rel=0.01)


def test_the_machine_is_named(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name\t: Some CPU: 2 GHz\nflags : a\n")
    assert cpu_model(cpuinfo) == "Some CPU: 2 GHz"
    assert isinstance(cpu_model(tmp_path / "nothing"), str)
    assert machine()["threads"] == torch.get_num_threads()
