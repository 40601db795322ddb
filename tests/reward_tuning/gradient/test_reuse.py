"""More than one gradient from one rollout: several active sets, and restarts from its end."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from base_model.sampling.guidance import Guidance, guided_velocity
from base_model.sampling.sigmas import sigma_table
from reward_tuning.errors import TuningError
from reward_tuning.gradient.methods import make_plan
from reward_tuning.gradient.plan import Plan
from reward_tuning.gradient.reuse import Restart, restart_index, shares_of
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.seeds import derive_seed
from reward_tuning.tuning.draws import Batch, draw_batch
from reward_tuning.tuning.trainer import optimiser_step
from tests.reward_tuning.cheap_rollouts import first_block
from tests.reward_tuning.tuning import test_step as steps
from tests.reward_tuning.tuning import test_trainer as runs

sampler, judge = steps.sampler, steps.judge
world, text_cache = runs.world, runs.text_cache
SIGMAS, PROMPTS = steps.SIGMAS, steps.PROMPTS


def plan(*active: int, sigmas: Tensor = SIGMAS, nested: float = 0.0) -> Plan:
    """Of the true end, with a rescale that its active steps decide."""
    drawn = make_plan("draft", torch.Generator(), sigmas, nested=nested)
    return replace(drawn, active=active, rescale=1.0)


def mean_of(gradients: list[list[Tensor]]) -> list[Tensor]:
    return [sum(of) / len(gradients) for of in zip(*gradients, strict=True)]  # type: ignore[misc]


@pytest.mark.parametrize("normalise", [False, True])
def test_active_sets_give_the_mean_of_their_gradients(
    sampler: ClipSampler, judge: FramedJudge, normalise: bool
) -> None:
    """One of three plans drawn twice; overlapping steps, an anchor, states that carry gradient."""
    sets = [plan(0, 2), plan(1, 2, nested=1.0), plan(0, 2), plan(3)]
    options = {"anchor": 0.5, "normalise_steps": normalise, "share": 0.5}
    single = [steps.step(sampler, [judge], Batch(PROMPTS, [7, 8], one), **options) for one in sets]
    together = Batch(PROMPTS, [7, 8], sets[0], more_plans=tuple(sets[1:]))
    report, got = steps.step(sampler, [judge], together, **options)
    assert steps.relative(got, mean_of([grads for _, grads in single])) <= 1e-7
    assert steps.relative(got, single[0][1]) > 1e-2
    assert report.loss == pytest.approx(single[0][0].loss, rel=1e-9)
    # of the plans' reports the one drawn twice appears once, but counts twice in the drift
    assert [seen.step for seen in report.steps] == [2, 0, 2, 1, 3]
    drifts, shares = [2 * 2 * single[0][0].drift, 2 * single[1][0].drift, single[3][0].drift], 7
    assert report.drift == pytest.approx(sum(drifts) / shares, rel=1e-6)


def test_active_sets_share_rollout_and_judgement(
    sampler: ClipSampler, judge: FramedJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, bool]] = []
    decoded: list[int] = []
    decode = sampler.generator.decode
    monkeypatch.setattr(
        sampler.generator,
        "decode",
        lambda x, frames, **_: decoded.append(1) or decode(x, frames),
    )
    hook = sampler.generator.transformer.register_forward_hook(
        lambda _, inputs, __: calls.append((len(inputs[0]), torch.is_grad_enabled()))
    )
    try:
        batch = Batch(PROMPTS, [7, 8], plan(0, 2), more_plans=(plan(1, 2), plan(0, 2)))
        steps.step(sampler, [judge], batch)
    finally:
        hook.remove()
    assert calls == [(4, False)] * 4 + [(2, True)] * 4
    assert decoded == [1]


def test_active_sets_are_all_exact_in_a_cheap_rollout(
    sampler: ClipSampler, judge: FramedJudge
) -> None:
    batch = Batch(PROMPTS, [7, 8], plan(1), more_plans=(plan(3),))
    report, _ = steps.step(sampler, [judge], batch, cheap=first_block(1e9))
    assert report.full_steps == 3  # the first, and these
    assert all(seen.rerun_error < 1e-6 for seen in report.steps)


def test_plans_that_share_no_reward_gradient() -> None:
    early = [make_plan("refl", torch.Generator().manual_seed(n), sigma_table(16)) for n in range(9)]
    assert len({one.stop for one in early}) > 1
    with pytest.raises(TuningError, match=r"posterior_mean of step \d+, another the posterior"):
        shares_of(early)
    leaps = [
        make_plan("leapalign", torch.Generator().manual_seed(n), SIGMAS, leap_floor=0.1)
        for n in range(2)
    ]
    with pytest.raises(TuningError, match="weight clips by their leaps"):
        shares_of(leaps)
    looks = make_plan("direct_align", torch.Generator().manual_seed(0), SIGMAS)
    with pytest.raises(TuningError, match="look at the end afresh"):
        shares_of([looks, looks])
    assert shares_of([looks]) == {looks: 1.0}
    assert shares_of([plan(0), plan(1), plan(0), plan(2)]) == {
        plan(0): 0.5,
        plan(1): 0.25,
        plan(2): 0.25,
    }


# --- restarts


def restart_references(
    sampler: ClipSampler, judge: FramedJudge, batch: Batch, negative: str
) -> list[tuple[float, list[Tensor]]]:
    """Loss and gradient of the chain and of each restart, by autograd of its definition."""
    generator, condition = sampler.generator, sampler.condition([p.text for p in PROMPTS])
    divisor = 3.0 if negative == "detached" else 1.0

    def chained(x: Tensor, first: int, plan: Plan) -> tuple[Tensor, float, list[Tensor]]:
        for i in range(first, 4):
            share = plan.nested / divisor  # a detached branch leaves the Jacobian too long
            seen = share * x + (1.0 - share) * x.detach()
            v = guided_velocity(generator, seen, SIGMAS[i], condition, Guidance(3.0), negative)  # type: ignore[arg-type]
            v = v if i - first in plan.active else v.detach()
            x = x + (SIGMAS[i + 1] - SIGMAS[i]) * v
        frames = generator.decode(x)[:, [0, 3]]
        loss = -2.0 * judge.reward(frames, [p.reward_text for p in PROMPTS]).mean()
        whole = float(SIGMAS[first])
        carried = sum(float(SIGMAS[first + i] - SIGMAS[first + i + 1]) for i in plan.active)
        grads = torch.autograd.grad(loss * whole / carried / divisor, steps.parameters(sampler))
        return x.detach(), float(loss.detach()), list(grads)

    end, loss, grads = chained(sampler.noise(batch.noise_seeds), 0, batch.plan)
    found = [(loss, grads)]
    for number, restart in enumerate(batch.restarts):
        noise = sampler.noise([derive_seed(s, "restart", number) for s in batch.noise_seeds])
        s = SIGMAS[restart.first]
        begin = (1 - s) * end + s * noise
        of = [chained(begin, restart.first, one)[1:] for one in restart.plans]
        found.append((of[0][0], mean_of([grads for _, grads in of])))
    return found


@pytest.mark.parametrize("negative", ["detached", "joint"])
def test_restarts_are_further_views(
    sampler: ClipSampler, judge: FramedJudge, negative: str
) -> None:
    """Loss and gradient are means over the chain and its restarts, their starts detached."""
    table = SIGMAS[1:]
    restarts = (
        Restart(1, (plan(0, 1, 2, sigmas=table, nested=1.0),)),
        Restart(1, (plan(1, sigmas=table), plan(0, 2, sigmas=table))),
    )
    batch = Batch(PROMPTS, [7, 8], plan(0, 2), restarts=restarts)
    views = restart_references(sampler, judge, batch, negative)
    losses = [loss for loss, _ in views]
    assert len({round(loss, 6) for loss in losses}) == 3
    calls: list[tuple[int, bool]] = []
    hook = sampler.generator.transformer.register_forward_hook(
        lambda _, inputs, __: calls.append((len(inputs[0]), torch.is_grad_enabled()))
    )
    try:
        report, got = steps.step(sampler, [judge], batch, negative=negative)
    finally:
        hook.remove()
    assert report.loss == pytest.approx(sum(losses) / 3, rel=1e-9)
    assert steps.relative(got, mean_of([grads for _, grads in views])) <= 1e-7
    with_gradient = 2 if negative == "detached" else 4
    assert calls == [(4, False)] * (4 + 3 + 3) + [(with_gradient, True)] * (2 + 3 + 1 + 2)
    assert (report.rollout_steps, report.full_steps) == (10, 10)
    assert [seen.step for seen in report.steps] == [2, 0, 3, 2, 1, 2, 3, 1]  # of the whole table


def test_a_restart_needs_the_end(sampler: ClipSampler, judge: FramedJudge) -> None:
    early = make_plan("refl", torch.Generator().manual_seed(0), SIGMAS)
    with pytest.raises(TuningError, match="reads the end of the chain"):
        Restart(1, (early,))
    look = make_plan("direct_align", torch.Generator().manual_seed(0), SIGMAS)
    with pytest.raises(TuningError, match="fresh look"):
        Restart(1, (look,))
    batch = Batch(PROMPTS, [7, 8], early, restarts=(Restart(1, (plan(0, sigmas=SIGMAS[1:]),)),))
    with pytest.raises(TuningError, match="stops at step 3 of 4, so it has no end to restart from"):
        steps.step(sampler, [judge], batch)


def test_where_a_restart_begins() -> None:
    sigmas = torch.tensor([1.0, 0.9, 0.6, 0.3, 0.01, 0.0])
    wanted = (0.999, 0.76, 0.74, 0.4, 0.16, 0.15, 1e-6)
    assert [restart_index(sigmas, sigma) for sigma in wanted] == [1, 1, 2, 3, 3, 4, 4]
    with pytest.raises(TuningError, match="one step"):
        restart_index(torch.tensor([1.0, 0.0]), 0.5)


# --- in a run


def test_a_run_with_both(world: Path, tmp_path: Path) -> None:
    keys = ("train.active_sets=2", "train.restarts=1", "method.active_steps=1")
    recipe, parts, state = runs.prepared(world, tmp_path, *keys, "train.restart_sigma=0.7")
    batch = draw_batch(recipe, parts.stream, parts.sigmas, state, Accelerator(), 0)
    assert len(batch.more_plans) == 1
    (restart,) = batch.restarts
    row = optimiser_step(recipe, parts, state, Accelerator())
    assert row["rollout"]["steps"] == 4 + 4 - restart.first
    assert row["grad_norm"] > 0
    assert math.isfinite(row["loss"])
