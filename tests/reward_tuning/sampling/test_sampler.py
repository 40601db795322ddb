"""The sampler: clips from seeds, and the velocity of one rollout with its memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from base_model.generator import Condition
from base_model.sampling.guidance import Guidance
from base_model.sampling.sample import euler_sample
from base_model.sampling.sigmas import sigma_table
from reward_tuning.errors import TuningError
from reward_tuning.gradient.engine import rollout
from reward_tuning.sampling.sampler import ClipSampler, RolloutVelocity, first_state, repeated
from reward_tuning.sampling.step_cache import step_cache
from reward_tuning.schema.cache_kinds import Taylor
from tests.reward_tuning import double_sampler
from tests.reward_tuning.double_sampler import PROMPTS, SIGMAS

sampler = double_sampler.sampler


def test_what_was_not_rolled_out_cannot_be_run_again(sampler: ClipSampler) -> None:
    condition = sampler.condition([prompt.text for prompt in PROMPTS])
    velocity = RolloutVelocity(sampler, condition, SIGMAS)
    with pytest.raises(
        TuningError, match="the sweep needs step 2, which the rollout did not visit"
    ):
        velocity(sampler.noise([7, 8]), 2)


@torch.no_grad()
def test_a_rollout_velocity_is_the_plain_one_and_runs_each_branch_once(
    sampler: ClipSampler,
) -> None:
    condition = sampler.condition(PROMPTS)
    plain = sampler.velocity(condition, SIGMAS)
    remembering = RolloutVelocity(sampler, condition, SIGMAS)
    x = sampler.noise([7, 8])
    batches: list[int] = []
    expected = [plain(x, i) for i in (0, 2)]
    hook = sampler.generator.transformer.register_forward_pre_hook(
        lambda module, args: batches.append(len(args[0]))
    )
    with hook:
        rolled = [remembering(x, i) for i in (0, 2)]
        again = remembering.at_once([x, x], [0, 2])
    for v, first, second in zip(expected, rolled, again, strict=True):
        torch.testing.assert_close(first, v)
        torch.testing.assert_close(second, v)
    # both branches of two clips at each step; then the positive one of two steps in one call
    assert batches == [4, 4, 4]


@torch.no_grad()
def test_a_cache_of_the_clips_is_that_of_generate(sampler: ClipSampler) -> None:
    cache, sigmas = Taylor(warm_up=2), sigma_table(8)
    plain = sampler.latents(PROMPTS, [7, 8], sigmas)
    calls: list[int] = []
    hook = sampler.generator.transformer.register_forward_pre_hook(
        lambda module, args: calls.append(len(args[0]))
    )
    with hook:
        found = replace(sampler, latents_cache=cache).latents(PROMPTS, [7, 8], sigmas)
    assert calls == [4] * 8  # predicted calls pass the hook, and run no block
    with step_cache(cache, sampler.generator.transformer, 8) as entered:
        expected = euler_sample(
            sampler.generator,
            sampler.condition(PROMPTS),
            sampler.noise([7, 8]),
            sigmas,
            sampler.guidance,
            around_step=entered.call,
        )
        assert entered.full_calls == 5
    assert torch.equal(found, expected)
    assert not torch.allclose(found, plain)
    assert torch.equal(sampler.latents(PROMPTS, [7, 8], sigmas), plain)  # and leaves nothing


@torch.no_grad()
def test_the_negative_branch_is_left_out_without_guidance(sampler: ClipSampler) -> None:
    condition = sampler.condition(PROMPTS)
    x = sampler.noise([7, 8])
    unguided = replace(sampler, negative="none")
    positive = sampler.generator.velocity(x, SIGMAS[1], condition.positive)
    assert torch.equal(unguided.velocity(condition, SIGMAS)(x, 1), positive)
    assert not torch.allclose(sampler.velocity(condition, SIGMAS)(x, 1), positive)


def test_latents_are_euler_steps_of_the_velocity(sampler: ClipSampler) -> None:
    joint = replace(sampler, negative="joint")
    states = rollout(
        joint.velocity(sampler.condition(PROMPTS), SIGMAS), sampler.noise([7, 8]), SIGMAS, 4
    )
    steps: list[int] = []
    latents = sampler.latents(PROMPTS, [7, 8], SIGMAS, steps.append)
    assert steps == [0, 1, 2, 3]
    torch.testing.assert_close(latents, states[-1].to(latents.dtype), rtol=1e-5, atol=1e-5)


def test_a_rollout_starts_from_noise_or_from_a_noised_video() -> None:
    noise, video = torch.randn(2, 1, 16, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    sigmas = torch.tensor([0.6, 0.3, 0.0])
    assert torch.equal(first_state(noise, None, sigmas), noise)
    torch.testing.assert_close(first_state(noise, video, sigmas), 0.4 * video + 0.6 * noise)


def test_a_condition_is_repeated_but_for_what_is_shared() -> None:
    text = torch.arange(6.0).view(2, 1, 3)
    shared = torch.ones(1, 4, 1, 2, 2)
    twice = repeated(Condition(text, inpaint_latents=shared), 2)
    assert torch.equal(twice.text, torch.cat([text, text]))
    assert twice.inpaint_latents is shared
    one = Condition(text)
    assert repeated(one, 1) is one


@torch.no_grad()
def test_an_interval_of_guidance_in_a_rollout_and_its_sweep(sampler: ClipSampler) -> None:
    """Sigma 1, 0.845 and 0.577: the second is guided; the sweep runs the three in one call."""
    some = replace(sampler, guidance=Guidance(3.0, interval=(0.6, 0.9)))
    condition = sampler.condition(PROMPTS)
    x = sampler.noise([7, 8])
    positive = replace(sampler, negative="none").velocity(condition, SIGMAS)
    guided = sampler.velocity(condition, SIGMAS)
    expected = [positive(x, 0), guided(x, 1), positive(x, 2)]
    remembering = RolloutVelocity(some, condition, SIGMAS)
    batches: list[int] = []
    hook = sampler.generator.transformer.register_forward_pre_hook(
        lambda module, args: batches.append(len(args[0]))
    )
    with hook:
        rolled = [remembering(x, i) for i in (0, 1, 2)]
        again = remembering.at_once([x, x, x], [0, 1, 2])
        joint = RolloutVelocity(replace(some, negative="joint"), condition, SIGMAS)
        both = joint.at_once([x, x, x], [0, 1, 2])
    assert batches == [2, 4, 2, 6, 8]
    for found in (rolled, again, both):
        for v, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(v, wanted)


def test_samples_have_their_own_interval(sampler: ClipSampler) -> None:
    full = sampler.latents(PROMPTS, [7, 8], SIGMAS)
    some = Guidance(3.0, interval=(0.6, 0.9))
    training_only = replace(sampler, guidance=some, latents_guidance=sampler.guidance)
    assert torch.equal(training_only.latents(PROMPTS, [7, 8], SIGMAS), full)
    assert not torch.allclose(
        replace(sampler, guidance=some).latents(PROMPTS, [7, 8], SIGMAS), full
    )
