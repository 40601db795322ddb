"""Plans of a batch: drawn by name, further ones for the same rollout, and of restarts."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import pytest

from base_model.sampling.sigmas import sigma_table
from reward_tuning.errors import TuningError
from reward_tuning.gradient.plan import Plan
from reward_tuning.gradient.reuse import restart_index, shares_of
from reward_tuning.tuning.plan_draws import draw_more_plans, draw_plan, draw_restarts
from tests.reward_tuning.tiny_run import tiny_recipe
from tests.reward_tuning.tuning import test_trainer as runs

world, text_cache = runs.world, runs.text_cache


def test_plans_are_drawn_by_name(world: Path, tmp_path: Path) -> None:
    keys = ("sampling.steps=16", "train.active_sets=3", "train.restarts=2")
    recipe = tiny_recipe(world, tmp_path, *keys)
    sigmas = sigma_table(16)

    def drawn(step: int) -> list[Plan]:
        first = draw_plan(recipe, sigmas, step=step, batch=0)
        return [first, *draw_more_plans(recipe, sigmas, first, step=step, batch=0)]

    plain = tiny_recipe(world, tmp_path, "sampling.steps=16")
    assert drawn(3) == drawn(3)
    assert len(drawn(3)) == 3
    assert drawn(3)[0] == draw_plan(plain, sigmas, step=3, batch=0)
    assert draw_more_plans(plain, sigmas, drawn(3)[0], step=3, batch=0) == ()
    assert draw_restarts(plain, sigmas, step=3, batch=0) == ()
    different = [len(set(drawn(step))) for step in range(20)]
    assert sum(different) / 20 > 1.9  # offsets coincide at times
    restarts = draw_restarts(recipe, sigmas, step=3, batch=0)
    assert len(restarts) == 2
    first = restart_index(sigmas, 0.5)
    for restart in restarts:
        assert restart.first == first
        assert [one.steps for one in restart.plans] == [16 - first] * 3
    of_steps = [draw_restarts(recipe, sigmas, step=step, batch=0) for step in range(20)]
    assert sum(len({*a.plans, *b.plans}) for a, b in of_steps) / 20 > 1.9
    low = tiny_recipe(world, tmp_path, "train.restarts=1", "train.restart_sigma=0.001")
    with pytest.raises(TuningError, match=r"train.restart_sigma is 0.001: a restart runs 1 steps"):
        draw_restarts(low, sigma_table(4), step=1, batch=0)


def test_plans_of_an_early_stop_all_read_there(world: Path, tmp_path: Path) -> None:
    """The further plans of a stop are distributed as first plans of that stop are."""
    keys = ("sampling.steps=16", "train.active_sets=2", "method.early_stop=true")
    recipe = tiny_recipe(world, tmp_path, *keys)
    sigmas = sigma_table(16)
    firsts: dict[int, Counter[Plan]] = defaultdict(Counter)
    others: dict[int, Counter[Plan]] = defaultdict(Counter)
    for step in range(400):
        first = draw_plan(recipe, sigmas, step=step, batch=0)
        (other,) = draw_more_plans(recipe, sigmas, first, step=step, batch=0)
        assert shares_of([first, other])  # raises where they do not share a reward gradient
        firsts[first.stop][first] += 1
        others[first.stop][other] += 1
    assert len(firsts) == 6
    for stop, of in firsts.items():
        assert set(of) == set(others[stop])
        total = of.total()
        assert sum(abs(of[one] - others[stop][one]) for one in of) / total < 0.6
        assert of != others[stop]
