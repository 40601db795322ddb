"""Steps of the rollout without gradient: cheaper, and exact where the sweep runs them again."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from base_model.sampling.guidance import Guidance, guided_velocity
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.sampling.cheap_steps import CheapSteps
from reward_tuning.sampling.sampler import ClipSampler
from tests.reward_tuning.cheap_rollouts import exact_states, first_block, walked
from tests.reward_tuning.tuning import test_step as steps

sampler, judge = steps.sampler, steps.judge
SIGMAS, PROMPTS = steps.SIGMAS, steps.PROMPTS


@contextmanager
def blocks_run(sampler: ClipSampler) -> Iterator[list[tuple[int, bool]]]:
    """(block, with gradient) of every block whose attention runs."""
    seen: list[tuple[int, bool]] = []
    hooks = [
        block.attn1.register_forward_pre_hook(
            lambda *_, number=number: seen.append((number, torch.is_grad_enabled()))
        )
        for number, block in enumerate(sampler.generator.transformer.transformer_blocks)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def test_a_cache_that_never_skips_changes_nothing(sampler: ClipSampler) -> None:
    states, full = walked(sampler, first_block(1e-12), (0, 2))
    assert full == 4
    plain, count = walked(sampler, CheapSteps(), (0, 2))
    assert count == 4
    assert all(torch.equal(a, b) for a, b in zip(states, plain, strict=True))


@pytest.mark.parametrize("negative", ["detached", "joint", "none"])
def test_a_skipped_step_adds_what_the_last_full_one_added(
    sampler: ClipSampler, negative: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the same written out: step 0 full, 1 skipped, 2 exact, 3 skipped."""
    with blocks_run(sampler) as seen:
        states, full = walked(sampler, first_block(1e9), (2,), negative)
    assert full == 2
    everything = [number for number, _ in seen]
    layers = len(sampler.generator.transformer.transformer_blocks)
    assert everything == [*range(layers), 0, *range(layers), 0]

    blocks = sampler.generator.transformer.transformer_blocks
    condition = sampler.condition([prompt.text for prompt in PROMPTS])
    branches = "none" if negative == "none" else "joint"
    x, added = sampler.noise([7, 8]), None
    for i in range(4):
        outputs = []
        with torch.no_grad(), monkeypatch.context() as patch:
            if i in (1, 3):
                assert added is not None
                last = added
                patch.setattr(blocks[1], "forward", lambda h, e, *_: (h + last[0], e + last[1]))  # noqa: B023
                for block in blocks[2:]:
                    patch.setattr(block, "forward", lambda h, e, *_: (h, e))
            hooks = [
                block.register_forward_hook(lambda _, __, out: outputs.append(out))  # noqa: B023
                for block in (blocks[0], blocks[-1])
            ]
            v = guided_velocity(sampler.generator, x, SIGMAS[i], condition, Guidance(3.0), branches)
            for hook in hooks:
                hook.remove()
        added = tuple(end - begin for begin, end in zip(*outputs, strict=True))
        assert torch.allclose(states[i], x, rtol=1e-5, atol=1e-6)
        x = x + (SIGMAS[i + 1] - SIGMAS[i]) * v
    assert torch.allclose(states[4], x, rtol=1e-5, atol=1e-6)
    assert float((states[4] - exact_states(sampler, negative)[4]).abs().max()) > 1e-3


def test_every_block_runs_where_the_number_of_branches_changes(sampler: ClipSampler) -> None:
    """The residual of one branch is none of two; of the levels only 0.845 is guided."""
    some = replace(sampler, guidance=Guidance(3.0, interval=(0.6, 0.9)))
    states, full = walked(some, first_block(1e9), (), "joint")
    assert full == 3  # and the fourth step, of one branch as the third, is skipped
    plain = exact_states(some, "joint")
    assert all(torch.equal(a, b) for a, b in zip(states[:4], plain[:4], strict=True))
    assert not torch.equal(states[4], plain[4])


def test_the_threshold_decides(sampler: ClipSampler) -> None:
    """Each step is judged by the change of the first block's share since the last full one."""
    shares: list[Tensor] = []
    block = sampler.generator.transformer.transformer_blocks[0]
    hook = block.register_forward_hook(lambda _, inputs, out: shares.append(out[0] - inputs[0]))
    try:
        exact_states(sampler, "joint")
    finally:
        hook.remove()
    change = float((shares[1] - shares[0]).abs().mean() / shares[0].abs().mean())
    below, _ = walked(sampler, first_block(change * 0.999), (), "joint")
    above, _ = walked(sampler, first_block(change * 1.001), (), "joint")
    plain = exact_states(sampler, "joint")
    assert torch.equal(below[2], plain[2])
    assert not torch.equal(above[2], plain[2])
    assert torch.equal(above[1], plain[1])


def test_the_gradient_is_that_of_the_states_visited(
    sampler: ClipSampler, judge: FramedJudge
) -> None:
    """The sweep meets what the rollout computed, with every block and the model itself."""
    one = steps.batch(early_stop=False)
    plain, exact = steps.step(sampler, [judge], one)
    assert (plain.rollout_steps, plain.full_steps) == (4, 4)
    with blocks_run(sampler) as seen:
        report, grads = steps.step(sampler, [judge], one, cheap=first_block(1e9))
    first = 0 not in one.plan.active
    assert (report.rollout_steps, report.full_steps) == (4, 2 + first)
    layers = len(sampler.generator.transformer.transformer_blocks)
    assert [number for number, grad in seen if grad] == [*range(layers)] * 2
    assert all(of.rerun_error < 1e-6 for of in report.steps)
    assert 1e-4 < steps.relative(grads, exact) < 1.0
    _, same = steps.step(sampler, [judge], one, cheap=first_block(1e-12))
    assert steps.relative(same, exact) == 0.0


def test_a_posterior_mean_is_computed_in_full(sampler: ClipSampler, judge: FramedJudge) -> None:
    one = steps.batch(early_stop=True)
    assert one.plan.reward_input == "posterior_mean"
    with blocks_run(sampler) as seen:
        report, _ = steps.step(sampler, [judge], one, cheap=first_block(1e9))
    layers = len(sampler.generator.transformer.transformer_blocks)
    last = sum(1 for number, grad in seen if number == layers - 1 and not grad)
    assert last == report.full_steps + 1
    assert report.rollout_steps == one.plan.stop


# --- other arithmetic


@pytest.fixture(scope="module")
def single(sampler: ClipSampler) -> ClipSampler:
    """The same in float32."""
    generator = copy.deepcopy(sampler.generator)
    generator.transformer.float()
    generator.vae.float()
    return replace(sampler, generator=generator)


def distance(states: list[Tensor], exact: list[Tensor]) -> float:
    return float((states[-1] - exact[-1]).norm() / exact[-1].norm())


@contextmanager
def product_dtypes(sampler: ClipSampler) -> Iterator[list[tuple[torch.dtype, bool]]]:
    """What the last linear layer gives out at each call, and whether with gradient."""
    seen: list[tuple[torch.dtype, bool]] = []
    hook = sampler.generator.transformer.proj_out.register_forward_hook(
        lambda _, __, out: seen.append((out.dtype, torch.is_grad_enabled()))
    )
    try:
        yield seen
    finally:
        hook.remove()


@pytest.mark.parametrize("cache", [None, 1e-12])
def test_bfloat16_where_no_gradient_needs_more(
    single: ClipSampler, judge: FramedJudge, cache: float | None
) -> None:
    low, full = torch.bfloat16, torch.float32
    with product_dtypes(single) as seen:
        states, count = walked(single, replace(first_block(cache), dtype=low), (1, 2))
    assert seen == [(dtype, False) for dtype in (low, full, full, low)]
    assert count == 4
    assert {state.dtype for state in states} == {full}
    assert 1e-4 < distance(states, exact_states(single)) < 3e-2
    one = steps.batch(early_stop=False)
    _, exact = steps.step(single, [judge], one)
    with product_dtypes(single) as seen:
        report, grads = steps.step(
            single,
            [judge],
            one,
            cheap=replace(first_block(cache), dtype=low),
        )
    assert [dtype for dtype, grad in seen if grad] == [full] * 2
    assert all(of.rerun_error < 1e-5 for of in report.steps)
    assert 1e-5 < steps.relative(grads, exact) < 0.2
