"""The rollout of a batch: its views, and what each of them hands to the sweep."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reward_tuning.gradient.leaps import leap_likeness
from reward_tuning.gradient.methods import make_plan
from reward_tuning.gradient.reuse import Restart
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.seeds import derive_seed
from reward_tuning.tuning.draws import Batch
from reward_tuning.tuning.views import rolled_out
from tests.reward_tuning.cheap_rollouts import first_block
from tests.reward_tuning.tuning import test_step as steps

sampler = steps.sampler
SIGMAS, PROMPTS = steps.SIGMAS, steps.PROMPTS


def test_the_end_of_a_plain_rollout(sampler: ClipSampler) -> None:
    found = rolled_out(sampler, steps.batch(early_stop=False), SIGMAS)
    (view,) = found.views
    assert (found.steps, found.full_steps, len(view.states)) == (4, 4, 5)
    assert torch.equal(view.x, view.states[-1])
    assert list(view.plans.values()) == [1.0]
    assert torch.equal(view.states[0], sampler.noise([7, 8]))
    assert (view.first, view.share, view.clip_weights) == (0, 1.0, None)


def test_a_posterior_mean_takes_one_velocity_more(sampler: ClipSampler) -> None:
    one = steps.batch(early_stop=True)
    (view,) = rolled_out(sampler, one, SIGMAS).views
    stop = one.plan.stop
    assert len(view.states) == stop + 1
    with torch.no_grad():
        v = sampler.velocity(sampler.condition(PROMPTS), SIGMAS)(view.states[stop], stop)
    torch.testing.assert_close(view.x, view.states[stop] - float(SIGMAS[stop]) * v)


def test_leaps_weight_each_clip(sampler: ClipSampler) -> None:
    plan = make_plan("leapalign", torch.Generator().manual_seed(0), SIGMAS, leap_floor=1e-3)
    (view,) = rolled_out(sampler, Batch(PROMPTS, [7, 8], plan), SIGMAS).views
    assert view.clip_weights is not None
    assert torch.equal(view.clip_weights, leap_likeness(view.states, SIGMAS, plan.leaps, 1e-3))


def test_fresh_looks_alone_have_no_view_of_the_end(sampler: ClipSampler) -> None:
    plan = make_plan("direct_align", torch.Generator().manual_seed(0), SIGMAS)
    (view,) = rolled_out(sampler, Batch(PROMPTS, [7, 8], plan), SIGMAS).views
    (look,) = plan.renoised
    assert (view.first, len(view.states)) == (plan.steps, 1)
    assert view.sigmas.tolist() == pytest.approx([look.sigma, 0.0])
    assert view.plan == plan.look(look)


def test_a_restart_begins_at_the_noised_end(sampler: ClipSampler) -> None:
    first = 2
    part = make_plan("draft", torch.Generator(), SIGMAS[first:])
    one = replace(steps.batch(early_stop=False), restarts=(Restart(first, (part,)),))
    found = rolled_out(sampler, one, SIGMAS)
    end, again = found.views
    noise = sampler.noise([derive_seed(seed, "restart", 0) for seed in (7, 8)])
    s = float(SIGMAS[first])
    assert torch.equal(again.states[0], (1.0 - s) * end.states[-1] + s * noise)
    assert (again.first, found.steps) == (first, 4 + 2)


def test_cheap_steps_are_counted(sampler: ClipSampler) -> None:
    one = steps.batch(early_stop=False)
    found = rolled_out(sampler, one, SIGMAS, first_block(1e9))
    assert found.steps == 4
    assert found.full_steps < 4
