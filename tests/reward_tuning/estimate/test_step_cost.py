"""The count of a step's operations, against hand counts and torch's own counter."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
import torch
from accelerate import Accelerator

from benchmarks.small_shape import SMALL, SMALL_CLIP
from reward_tuning.estimate import step_cost
from reward_tuning.estimate.flop_meter import FlopMeter
from reward_tuning.estimate.random_parts import random_parts
from reward_tuning.estimate.shapes import shape_of
from reward_tuning.estimate.step_parts import Parts, watched
from reward_tuning.schema.loading import load_recipe
from reward_tuning.schema.recipe import Recipe
from reward_tuning.seeds import derive_generator
from reward_tuning.tuning.sigma_tables import training_sigmas
from reward_tuning.tuning.trainer import optimiser_step, start

NAME = "easyanimate-v5.1-12b-hps-long"
SHORT = ("sampling.steps=5", "method.early_stop=true", "method.active_steps=2", "train.steps=20")


def recipe_of(*overrides: str, name: str = NAME) -> Recipe:
    return load_recipe(name, [*overrides, *step_cost.ONE_BATCH], check_files=False)


def small(*overrides: str) -> Recipe:
    return recipe_of(*SMALL_CLIP, *SHORT, *overrides)


@cache
def metered() -> FlopMeter:
    return step_cost.metered_step(small(), SMALL, 0)


def by_hand(blocks: tuple[int, int]) -> int:
    """One forward pass at 256x256 and 49 frames, from the layers' widths; 2 for a multiply-add."""
    d, time, text, t = 3072, 512, 3584, 256
    v = 13 * 16 * 16
    products = 0
    for own in blocks:  # a block without a text stream of its own runs both through one: the same
        a_block = 4 * (v + t) * d * d  # queries, keys, values, output
        a_block += 2 * (v + t) * d * 4 * d  # feed-forward
        a_block += 2 * (v + t) ** 2 * d  # scores and their product with the values
        a_block += 2 * time * 6 * d  # the two modulations
        products += own * a_block
    products += d * time + time * time  # time embedding
    products += v * 33 * 4 * d + t * text * d  # patches and text to channels
    products += time * 2 * d + v * d * 64  # the last modulation, channels to patches
    return 2 * products


@pytest.mark.parametrize(
    ("name", "blocks"), [(NAME, (48, 0)), ("easyanimate-v5.1-7b-hps", (18, 18))]
)
def test_one_branch_by_hand(name: str, blocks: tuple[int, int]) -> None:
    recipe = recipe_of(name=name)
    shape = shape_of(recipe.generator)
    assert shape.blocks == blocks
    found = step_cost.along_blocks(
        lambda of: {("", "", ""): step_cost.branch_flops(recipe, of)}, shape
    )
    assert found["", "", ""] == by_hand(blocks)
    if name == NAME:  # the formula of the issue: L (24 S d^2 + 4 S^2 d), and what it leaves out
        tokens = 13 * 256 + 256
        formula = 48 * (24 * tokens * 3072**2 + 4 * tokens**2 * 3072)
        assert formula / 1e12 == pytest.approx(46.55, abs=0.02)
        assert found["", "", ""] == pytest.approx(formula, rel=2e-3)


def test_a_step_with_values_counts_the_same() -> None:
    recipe = small("generator.dtype=float32")
    parts, where = random_parts(recipe, SMALL, torch.device("cpu")), Parts()
    watched(parts.sampler.generator, parts.judges, where)
    state = start(recipe, parts)
    with FlopMeter(where) as meter:
        row = optimiser_step(recipe, parts, state, Accelerator(cpu=True), where.on_progress)
    assert row["grad_norm"] > 0
    assert row["loss"] != 0
    assert meter.flops == metered().flops
    assert not meter.reads  # on a CPU nobody waits


def test_parts_and_passes() -> None:
    found = metered().flops
    forward, again, backward = (
        found["reward", "decoder", of] for of in ("forward", "again", "backward")
    )
    # A convolution's backward for its input alone is one product; 1x1 layers before the
    # checkpoints are not repeated.
    assert backward == forward
    assert 0.9 * forward < again < forward
    swept = {of: found["sweep", "positive", of] for of in ("forward", "again", "backward")}
    assert 0.9 * swept["forward"] < swept["again"] < swept["forward"] < swept["backward"]
    assert found["sweep", "base", "forward"] > 0
    assert found["reward", "text", "forward"] > 0
    assert {part for _, part, _ in found} == {
        "both",
        "decoder",
        "judges",
        "text",
        "positive",
        "base",
    }


@pytest.mark.slow
def test_how_often_the_host_waits_for_the_device() -> None:
    """Each reading of a value stops the queue of a GPU: their number must not grow with the steps.

    A step that is run again is checked against the rollout before its gradient is used: one each.
    """

    def reads(*overrides: str) -> Counter[str]:
        return step_cost.metered_step(small(*overrides), SMALL, 0, {}).reads

    one = reads("method.active_steps=1", "train.keep_graphs=1")
    assert sum(one.values()) <= 10, one
    assert one["reward_tuning/gradient/readings.py:read_together"] == 1
    assert reads("train.keep_graphs=2") == one
    again = reads()
    assert again - one == Counter({"reward_tuning/gradient/engine.py:_checked_rerun": 2})
    assert reads("sampling.steps=8") == again  # the rollout reads nothing


def test_a_kept_graph_saves_the_sweeps_forward_pass() -> None:
    found = step_cost.metered_step(small("train.keep_graphs=2"), SMALL, 0, {}).flops
    saved = metered().flops["sweep", "positive", "forward"]
    assert saved > 0
    assert sum(metered().flops.values()) - sum(found.values()) == saved
    assert ("sweep", "positive", "forward") not in found


@pytest.mark.slow
def test_the_shipped_recipe_takes_two_fifths_of_the_long_one() -> None:
    from tests.reward_tuning.schema.test_recipe_headers import COUNTED

    name = "easyanimate-v5.1-12b-hps"
    short = step_cost.cost(name, recipe_of(name=name), shape_of(recipe_of(name=name).generator))
    assert short.total / short.branch == pytest.approx(COUNTED[8], abs=0.02)
    assert COUNTED[8] / COUNTED[25] < 0.4


def test_without_checkpoints_nothing_is_repeated() -> None:
    recipe = small(
        "train.gradient_checkpointing=false",
        "train.decoder_checkpointing=false",
        "rewards.0.gradient_checkpointing=false",
        "rewards.0.chunk=null",
    )
    found = step_cost.metered_step(recipe, SMALL, 0).flops
    assert "again" not in {what[2] for what in found}
    assert found["sweep", "positive", "forward"] == metered().flops["sweep", "positive", "forward"]


def test_the_decoder_is_followed_once_for_all_numbers_of_blocks() -> None:
    seen: step_cost.Seen = {}
    step_cost.metered_step(small(), SMALL.with_blocks(1, 1), 0, seen)
    decoded = [key for key in seen if "decoder" in key]
    assert step_cost.metered_step(small(), SMALL, 0, seen).flops == metered().flops
    assert [key for key in seen if "decoder" in key] == decoded != []


def test_known_calls_count_as_if_they_ran() -> None:
    seen: step_cost.Seen = {}
    recipe = small()
    assert step_cost.metered_step(recipe, SMALL, 0, seen).flops == metered().flops
    assert step_cost.metered_step(recipe, SMALL, 0, seen).flops == metered().flops


@pytest.mark.slow
def test_the_line_through_few_blocks_is_the_count_of_all() -> None:
    recipe, shape = small("train.steps=1"), SMALL.with_blocks(4, 3)
    few = step_cost.cost("few", recipe, shape)
    whole = step_cost.cost("all", recipe, shape, all_blocks=True)
    assert few.rows == pytest.approx(whole.rows, rel=1e-12)
    assert few.branch == whole.branch


def test_the_mean_over_the_plans_of_the_run() -> None:
    """Both branches to the stop and once more there; the sweep runs K steps."""
    recipe = small("lora.rank=1")
    found = step_cost.cost("small", recipe, SMALL)
    sigmas = training_sigmas(recipe)
    stops = [
        recipe.method.plan(derive_generator(recipe.seed, "plan", step, 0), sigmas).stop
        for step in range(1, 21)
    ]
    assert len(set(stops)) == 2
    assert found.plans == sorted(Counter(stops).values(), reverse=True)
    guided = sum(stop + 1 for stop in stops) / 20
    with_adapter = found.rows["sweep forward"] / 2
    assert found.rows["rollout"] == pytest.approx(2 * guided * with_adapter, rel=1e-9)
    assert found.rows["anchor"] == pytest.approx(2 * 2 * found.branch, rel=1e-9)
    assert found.negative == pytest.approx(found.rows["rollout"] / 2)
    assert found.rows["other"] == 0


@pytest.mark.slow
def test_a_few_steps_stand_for_all() -> None:
    recipe = small("lora.rank=1")
    few, whole = (step_cost.cost("small", recipe, SMALL, most=most) for most in (1, None))
    assert few.plans == [1]
    assert 0.9 < few.total / whole.total < 1.1
    assert few.total != whole.total


def test_the_largest_step_runs_longest_where_all_judge_alike() -> None:
    recipe = small("lora.rank=1")
    sigmas = training_sigmas(recipe)
    stops = [
        recipe.method.plan(derive_generator(recipe.seed, "plan", step, 0), sigmas).stop
        for step in range(1, 21)
    ]
    assert stops[step_cost.largest_step(recipe, SMALL)] == max(stops)


def test_an_interval_of_guidance_runs_the_negative_branch_there_alone() -> None:
    recipe = small("method.early_stop=false", "sampling.guidance_steps=[0.5, 0.9]")
    guided = int(((training_sigmas(recipe) >= 0.5) & (training_sigmas(recipe) <= 0.9)).sum())
    assert 0 < guided < 5
    found = step_cost.metered_step(recipe, SMALL, 0, {}).flops
    whole = step_cost.metered_step(small("method.early_stop=false"), SMALL, 0, {}).flops
    both, alone = (found["rollout", part, "forward"] for part in ("both", "positive"))
    assert (both + 2 * alone) == whole["rollout", "both", "forward"]
    assert both * 5 == whole["rollout", "both", "forward"] * guided


def test_the_number_of_guided_steps_makes_another_cost() -> None:
    keys = []
    for interval in ("null", "[0.5, 0.9]"):
        recipe = small(f"sampling.guidance_steps={interval}", "train.steps=1")
        keys.append(next(iter(step_cost.kinds_of_steps(recipe, SMALL))))
    assert keys[0] != keys[1]


def test_steps_of_one_cost() -> None:
    """Which of equal steps are active does not matter, so they are counted once."""
    recipe = small("method.early_stop=false", "sampling.steps=9")
    ((key, steps),) = step_cost.kinds_of_steps(recipe, SMALL).items()
    assert len(steps) == 20
    assert key
    parts = random_parts(recipe, SMALL, torch.device("meta"))
    active = {
        recipe.method.plan(derive_generator(recipe.seed, "plan", step, 0), parts.sigmas).active
        for step in range(1, 21)
    }
    assert len(active) > 1
