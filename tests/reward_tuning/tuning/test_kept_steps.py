"""Batches whose active steps keep their graphs: the gradient of the sweep, with fewer calls."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from base_model.sampling.guidance import NegativeBranch
from reward_tuning.gradient.methods import make_plan
from reward_tuning.gradient.reuse import Restart
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.sampling.cheap_steps import CheapSteps
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.tuning.draws import Batch
from tests.reward_tuning.cheap_rollouts import first_block
from tests.reward_tuning.gradient.test_reuse import plan
from tests.reward_tuning.tuning import test_step as steps

sampler, judge = steps.sampler, steps.judge
SIGMAS, PROMPTS = steps.SIGMAS, steps.PROMPTS
EVERY = 99


@pytest.mark.parametrize("negative", ["detached", "joint", "none"])
@pytest.mark.parametrize("anchor", [0.0, 0.3])
def test_gradient_is_that_of_the_whole_chain(
    sampler: ClipSampler, judge: FramedJudge, negative: NegativeBranch, anchor: float
) -> None:
    one = steps.batch(active_steps=3, early_stop=False, smallest_step=0.0)
    loss, _, expected = steps.reference(sampler, judge, one, negative, anchor=anchor)
    for keep in (1, EVERY):
        options: dict[str, Any] = {"negative": negative, "anchor": anchor, "keep_graphs": keep}
        report, got = steps.step(sampler, [judge], one, **options)
        assert report.loss == pytest.approx(loss, rel=1e-9)
        assert steps.relative(got, expected) <= 1e-9
        assert report.kept_steps == min(keep, 3)


BATCHES = {
    "nested": steps.batch("draft_k", active_steps=3, smallest_step=0.0),
    "early stop": steps.batch(early_stop=True),
    "crossed steps": Batch(PROMPTS, [7, 8], plan(0, 2, nested=1.0)),
    "looks": Batch(PROMPTS, [7, 8], make_plan("draft_lv", torch.Generator(), SIGMAS)),
    "a look alone": Batch(PROMPTS, [7, 8], make_plan("direct_align", torch.Generator(), SIGMAS)),
    "leaps": Batch(PROMPTS, [7, 8], make_plan("leapalign", torch.Generator(), SIGMAS)),
    "active sets": Batch(
        PROMPTS, [7, 8], plan(0, 2), more_plans=(plan(1, 2, nested=1.0), plan(0, 2), plan(3))
    ),
    "restarts": Batch(
        PROMPTS,
        [7, 8],
        plan(0, 2),
        restarts=(Restart(1, (plan(0, 2, sigmas=SIGMAS[1:]), plan(1, 2, sigmas=SIGMAS[1:]))),),
    ),
}


@pytest.mark.parametrize("name", BATCHES)
def test_every_kind_of_batch_keeps_its_gradient(
    sampler: ClipSampler, judge: FramedJudge, name: str
) -> None:
    """Against the sweep, which other tests hold to autograd; the calls that are saved."""
    one, options = BATCHES[name], {"adjoint_limit": 3.0, "normalise_steps": True}
    calls: list[bool] = []
    hook = sampler.generator.transformer.register_forward_pre_hook(
        lambda *_: calls.append(torch.is_grad_enabled())
    )
    with hook:
        plain, expected = steps.step(sampler, [judge], one, **options)
        swept = sum(calls)
        for keep in (1, 2, EVERY):
            calls.clear()
            report, got = steps.step(sampler, [judge], one, keep_graphs=keep, **options)
            assert steps.relative(got, expected) <= 1e-12
            assert report.loss == pytest.approx(plain.loss, rel=1e-12)
            assert [(s.step, s.active) for s in report.steps] == [
                (s.step, s.active) for s in plain.steps
            ]
            assert 0 < report.kept_steps <= keep
            if keep == EVERY:  # each visited step once, none run again by the sweep
                assert sum(calls) == report.kept_steps <= swept
    assert plain.kept_steps == 0


def test_a_kept_step_runs_the_branches_one_after_the_other(
    sampler: ClipSampler, judge: FramedJudge
) -> None:
    one = steps.batch(active_steps=2, early_stop=False, smallest_step=0.0)
    calls: list[tuple[int, bool]] = []
    hook = sampler.generator.transformer.register_forward_pre_hook(
        lambda module, args: calls.append((len(args[0]), torch.is_grad_enabled()))
    )
    with hook:
        steps.step(sampler, [judge], one, keep_graphs=1)
    both, again = [(4, False)], [(2, True)]
    kept = [(2, False), (2, True)]
    last = one.plan.active[-1]
    expected = [kept if i == last else both for i in range(4)]
    assert calls == [call for calls in expected for call in calls] + again


@pytest.mark.parametrize("interval", [(0.0, 0.8), (0.8, 1.0)])
def test_steps_outside_the_guidances_interval(
    sampler: ClipSampler, judge: FramedJudge, interval: tuple[float, float]
) -> None:
    one = steps.batch(active_steps=3, early_stop=False, smallest_step=0.0)
    partly = replace(sampler, guidance=replace(sampler.guidance, interval=interval))
    _, expected = steps.step(partly, [judge], one)
    _, got = steps.step(partly, [judge], one, keep_graphs=EVERY)
    assert steps.relative(got, expected) <= 1e-12
    _, whole = steps.step(sampler, [judge], one)
    assert steps.relative(whole, expected) > 1e-3


@pytest.mark.parametrize("negative", ["joint", "none"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_in_a_cached_rollout(
    sampler: ClipSampler, judge: FramedJudge, negative: NegativeBranch, checkpointed: bool
) -> None:
    """The cache is refilled by a kept step, as by one that the sweep runs again."""
    one = steps.batch(active_steps=2, early_stop=False, smallest_step=0.0)
    if checkpointed:
        sampler.generator.transformer.enable_gradient_checkpointing()
    try:
        options: dict[str, Any] = {"negative": negative, "cheap": first_block(1e9)}
        plain, expected = steps.step(sampler, [judge], one, **options)
        report, got = steps.step(sampler, [judge], one, keep_graphs=EVERY, **options)
    finally:
        sampler.generator.transformer.disable_gradient_checkpointing()
    assert plain.full_steps == report.full_steps < 4
    assert report.kept_steps == 2
    assert steps.relative(got, expected) <= 1e-12


def test_a_cache_of_both_branches_keeps_no_graph(sampler: ClipSampler, judge: FramedJudge) -> None:
    one, cheap = steps.batch(early_stop=False), first_block(1e9)
    plain, expected = steps.step(sampler, [judge], one, cheap=cheap)
    report, got = steps.step(sampler, [judge], one, cheap=cheap, keep_graphs=EVERY)
    assert report.kept_steps == 0
    assert report.full_steps == plain.full_steps
    assert steps.relative(got, expected) == 0.0
    # at guidance 1 there is one branch
    alone = replace(one, guidance_scale=1.0)
    assert steps.step(sampler, [judge], alone, cheap=cheap, keep_graphs=EVERY)[0].kept_steps == 2


def test_in_a_bfloat16_rollout_a_kept_step_is_exact(
    sampler: ClipSampler, judge: FramedJudge
) -> None:
    one = steps.batch(active_steps=2, early_stop=False, smallest_step=0.0)
    cheap = CheapSteps(dtype=torch.bfloat16)
    dtypes: list[torch.dtype] = []
    hook = sampler.generator.transformer.proj_out.register_forward_hook(
        lambda _, __, out: dtypes.append(out.dtype) if torch.is_grad_enabled() else None
    )
    with hook:
        _, expected = steps.step(sampler, [judge], one, cheap=cheap)
        _, got = steps.step(sampler, [judge], one, cheap=cheap, keep_graphs=EVERY)
    assert set(dtypes) == {torch.float64}
    assert steps.relative(got, expected) <= 1e-12
