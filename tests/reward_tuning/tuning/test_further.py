"""Further updates on one rollout: their gradient against autograd, and what they leave alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from base_model.sampling.guidance import Guidance, guided_velocity
from base_model.sampling.sigmas import sigma_table
from reward_tuning.gradient.engine import rollout
from reward_tuning.gradient.methods import make_plan
from reward_tuning.gradient.plan import Plan
from reward_tuning.gradient.reuse import Restart, further_shares, place_read
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.tuning.draws import Batch, draw_batch
from reward_tuning.tuning.plan_draws import draw_later_plans, draw_plan
from reward_tuning.tuning.step import BatchReport, StepOptions, reward_step, sweep
from reward_tuning.tuning.trainer import optimiser_step
from tests.reward_tuning.cheap_rollouts import first_block
from tests.reward_tuning.tiny_run import tiny_recipe
from tests.reward_tuning.tuning import test_step as steps
from tests.reward_tuning.tuning import test_trainer as runs

sampler, judge = steps.sampler, steps.judge
world, text_cache = runs.world, runs.text_cache
SIGMAS, PROMPTS = steps.SIGMAS, steps.PROMPTS


def plan(*active: int, nested: float = 0.0) -> Plan:
    drawn = make_plan("draft", torch.Generator(), SIGMAS, nested=nested)
    return replace(drawn, active=active, rescale=1.0)


@contextmanager
def moved(sampler: ClipSampler, by: float) -> Iterator[None]:
    """Another adapter within the context."""
    own = steps.parameters(sampler)
    draw = torch.Generator().manual_seed(11)
    before = [p.detach().clone() for p in own]
    try:
        with torch.no_grad():
            for p in own:
                p.add_(by * torch.randn(p.shape, generator=draw, dtype=torch.float64))
        yield
    finally:
        with torch.no_grad():
            for p, old in zip(own, before, strict=True):
                p.copy_(old)


def first(
    sampler: ClipSampler, judge: FramedJudge, batch: Batch, **options: Any
) -> tuple[BatchReport, list[Tensor]]:
    return steps.step(sampler, [judge], batch, **options)


def further(
    sampler: ClipSampler, report: BatchReport, *, update: int = 1, **options: Any
) -> tuple[Any, list[Tensor]]:
    own = steps.parameters(sampler)
    for p in own:
        p.grad = None
    assert report.judged is not None
    found, _ = sweep(report.judged, own, StepOptions(**options), update=update)
    return found, [p.grad.clone() for p in own if p.grad is not None]


def reward_at(sampler: ClipSampler, judge: FramedJudge, x: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.detach().requires_grad_()
    frames = sampler.generator.decode(leaf)[:, [0, 3]]
    loss = -2.0 * judge.reward(frames, [p.reward_text for p in PROMPTS]).mean()
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


@pytest.mark.parametrize("nested", [0.0, 1.0])
@pytest.mark.parametrize("kept", [0, 2])
def test_the_gradient_is_autograd_at_the_stored_states_with_the_stored_reward(
    sampler: ClipSampler, judge: FramedJudge, nested: float, kept: int
) -> None:
    """Joint branches, so nothing is detached: the chain linearised about the older rollout."""
    both = replace(sampler, negative="joint")
    later = plan(1, 3, nested=nested)
    batch = Batch(PROMPTS, [7, 8], plan(0, 2), later_plans=((later,),))
    report, _ = first(both, judge, batch, negative="joint", keep_graphs=kept)
    condition = sampler.condition([p.text for p in PROMPTS])

    def velocity(x: Tensor, i: int) -> Tensor:
        return guided_velocity(sampler.generator, x, SIGMAS[i], condition, Guidance(3.0), "joint")

    states = rollout(velocity, sampler.noise([7, 8]), SIGMAS, 4)
    _, g = reward_at(sampler, judge, states[-1])
    with moved(sampler, 0.05):
        found, got = further(sampler, report)
        # Deviations u_i from the stored states follow the step that starts at each of them.
        u = torch.zeros_like(g)
        for i in range(4):
            x = states[i] + nested * u
            v = velocity(x, i)
            still = velocity(states[i], i).detach()
            if i not in later.active:  # its parameters are constants; its input is not
                own = steps.parameters(sampler)
                for p in own:
                    p.requires_grad_(False)
                v = velocity(x, i)
                for p in own:
                    p.requires_grad_(True)
            u = u + (SIGMAS[i + 1] - SIGMAS[i]) * (v - still)
        surrogate = later.gradient_scale * (g * u).sum()
        expected = torch.autograd.grad(surrogate, steps.parameters(sampler))
    assert steps.relative(got, list(expected)) <= 1e-7
    assert [step.step for step in found] == [3, 1]
    assert all(step.rerun_error > 1e-3 for step in found)


def test_a_detached_branch_stays_that_of_the_rollout(
    sampler: ClipSampler, judge: FramedJudge
) -> None:
    """Only the positive branch is run again: three times its movement, over the whole length."""
    batch = Batch(PROMPTS, [7, 8], plan(0, 2), later_plans=((plan(1),), (plan(2, 3),)))
    report, _ = first(sampler, judge, batch)
    condition = sampler.condition([p.text for p in PROMPTS])
    velocity = sampler.velocity(condition, SIGMAS)
    states = rollout(velocity, sampler.noise([7, 8]), SIGMAS, 4)
    _, g = reward_at(sampler, judge, states[-1])

    def positive(i: int) -> Tensor:
        return sampler.generator.velocity(states[i], SIGMAS[i], condition.positive)

    with torch.no_grad():
        whole = velocity(states[1], 1)
        then = positive(1)
    calls: list[tuple[int, bool]] = []
    hook = sampler.generator.transformer.register_forward_hook(
        lambda _, inputs, __: calls.append((len(inputs[0]), torch.is_grad_enabled()))
    )
    with moved(sampler, 0.05), hook:
        found, got = further(sampler, report)
        assert calls == [(2, True)]
        again = positive(1)
        weight = plan(1).gradient_scale * plan(1).weights[1]
        expected = torch.autograd.grad(weight * (g * again).sum(), steps.parameters(sampler))
        other, _ = further(sampler, report, update=2)
    assert steps.relative(got, list(expected)) <= 1e-7
    error = 3.0 * float((again.detach() - then).norm() / whole.norm())
    assert found[0].rerun_error == pytest.approx(error, rel=0.2)  # over the length now
    assert [step.step for step in other] == [3, 2]


def test_without_a_move_an_update_repeats_the_first(
    sampler: ClipSampler, judge: FramedJudge
) -> None:
    """With sets, an anchor, one norm for each step, restarts and fresh looks, at half weight."""
    table = SIGMAS[1:]
    over = replace(make_plan("draft", torch.Generator(), table), active=(0, 2))
    sets = (plan(0, 2), plan(1))
    batch = Batch(
        PROMPTS,
        [7, 8],
        sets[0],
        more_plans=sets[1:],
        later_plans=(sets,),
        restarts=(Restart(1, (over,), ((over,),)),),
    )
    options: dict[str, Any] = {"anchor": 0.3, "share": 0.5, "normalise_steps": True}
    report, expected = first(sampler, judge, batch, **options)
    found, got = further(sampler, report, **options)
    assert steps.relative(got, expected) == 0.0
    assert found == report.steps
    looks = make_plan("draft_lv", torch.Generator(), SIGMAS)
    batch = Batch(PROMPTS, [7, 8], looks, later_plans=((looks,),))
    report, expected = first(sampler, judge, batch)
    assert steps.relative(further(sampler, report)[1], expected) == 0.0
    assert first(sampler, judge, replace(batch, later_plans=()))[0].judged is None


def test_later_steps_are_exact_in_a_cheap_rollout(sampler: ClipSampler, judge: FramedJudge) -> None:
    batch = Batch(PROMPTS, [7, 8], plan(1), later_plans=((plan(3),),))
    report, _ = first(sampler, judge, batch, cheap=first_block(1e9))
    assert report.full_steps == 3  # the first, and these
    found, _ = further(sampler, report)
    assert found[0].rerun_error < 1e-6


def test_plans_that_weight_clips_are_followed_by_themselves() -> None:
    leap = make_plan("leapalign", torch.Generator().manual_seed(0), SIGMAS, leap_floor=0.1)
    assert further_shares(leap, [leap, leap]) == {leap: 1.0}
    assert further_shares(plan(0), [plan(1), plan(2)]) == {plan(1): 0.5, plan(2): 0.5}


# --- in a run


@pytest.mark.parametrize("kind", ["drtune", "leapalign", "refl", "direct_align"])
def test_later_plans_read_what_the_first_one_reads(world: Path, tmp_path: Path, kind: str) -> None:
    keys = ("sampling.steps=16", "train.updates_per_rollout=3", f"method={{kind: {kind}}}")
    if kind == "drtune":
        keys = (*keys[:2], "method={kind: drtune, active_steps: 2}", "train.active_sets=2")
    recipe = tiny_recipe(world, tmp_path, *keys)
    sigmas = sigma_table(16)
    different = 0
    for step in range(20):
        one = draw_plan(recipe, sigmas, step=step, batch=0)
        later = draw_later_plans(recipe, sigmas, one, step=step, batch=0)
        assert len(later) == 2
        assert all(place_read(of) == place_read(one) for update in later for of in update)
        assert all(further_shares(one, update) for update in later)
        assert later == draw_later_plans(recipe, sigmas, one, step=step, batch=0)
        different += later[0] != later[1]
    assert different == 0 if recipe.method.one_plan_only else different > 10
    assert {len(update) for update in later} == {2 if kind == "drtune" else 1}


def test_a_step_makes_several_updates(world: Path, tmp_path: Path) -> None:
    keys = ("train.updates_per_rollout=3", "train.gradient_accumulation=2", "train.ema_decay=0.9")
    limit = "train.reuse_limit=10.0"
    recipe, parts, state = runs.prepared(world, tmp_path, *keys, limit, "train.learning_rate=1e-3")
    calls: list[bool] = []
    hook = parts.sampler.generator.transformer.register_forward_hook(
        lambda *_: calls.append(torch.is_grad_enabled())
    )
    with hook:
        row = optimiser_step(recipe, parts, state, Accelerator())
    assert calls == ([False] * 4 + [True] * 2) * 2 + [True] * 8
    assert row["further"]["updates"] == 2
    assert 0 < row["further"]["rerun_error"] < 10
    assert row["further"]["grad_norm"] > 0
    moments = state.optimiser.state[parts.parameters[0]]
    assert int(moments["step"]) == 3
    assert (state.step, state.position, state.ema.updates) == (1, 4, 3)
    assert row["loss"] == pytest.approx(-row["reward"]["clip"])


def test_the_limit_ends_them_before_they_change_anything(world: Path, tmp_path: Path) -> None:
    keys = ("train.updates_per_rollout=3", "train.reuse_limit=1e-9")
    recipe, parts, state = runs.prepared(world, tmp_path, *keys)
    row = optimiser_step(recipe, parts, state, Accelerator())
    assert row["further"] == {
        "updates": 0,
        "rerun_error": pytest.approx(row["further"]["rerun_error"]),
        "grad_norm": None,
    }
    assert row["further"]["rerun_error"] > 1e-6
    plain, once, begun = runs.prepared(world, tmp_path)
    expected = optimiser_step(plain, once, begun, Accelerator())
    assert "further" not in expected
    for a, b in zip(parts.parameters, once.parameters, strict=True):
        assert torch.equal(a, b)
    assert expected["grad_norm"] == row["grad_norm"]


def test_the_first_update_is_that_of_a_run_without_further_ones(
    world: Path, tmp_path: Path
) -> None:
    recipe, parts, state = runs.prepared(world, tmp_path, "train.updates_per_rollout=2")
    batch = draw_batch(recipe, parts.stream, parts.sigmas, state, Accelerator(), 0)
    plain = draw_batch(
        tiny_recipe(world, tmp_path), parts.stream, parts.sigmas, state, Accelerator(), 0
    )
    assert replace(batch, later_plans=()) == plain
    grads = []
    for one in (batch, plain):
        for p in parts.parameters:
            p.grad = None
        reward_step(parts.sampler, parts.judges, one, parts.sigmas, parameters=parts.parameters)
        grads.append([p.grad.clone() for p in parts.parameters])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.slow
def test_replayed_clips_count_in_every_update(world: Path, tmp_path: Path) -> None:
    """A replay of great weight leaves the reward nothing to say, in the later updates, too."""
    from reward_tuning.tuning.trainer import run

    norms = []
    for weight in (0.0, 1e4):
        keys = (f"train.replay={{weight: {weight}, clips: 2}}", "train.steps=2")
        recipe = tiny_recipe(
            world,
            tmp_path / str(weight),
            *keys,
            "train.updates_per_rollout=2",
            "train.reuse_limit=null",
            "evaluation.prompts=2",
            "evaluation.seeds=1",
        )
        folder = run(recipe).folder
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        norms.append([row["further"]["grad_norm"] for row in rows])
        assert [row["further"]["updates"] for row in rows] == [1, 1]
    assert all(heavy > 100 * light for light, heavy in zip(*norms, strict=True))
