"""Matching of clips on the model: gradients by definition, updates of a step, whole steps."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from reward_tuning.gradient.methods.awm import AWM
from reward_tuning.gradient.methods.matching_method import MatchingMethod
from reward_tuning.gradient.methods.nft import NFT
from reward_tuning.lora.adapter import scaled
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.tuning.draws import Batch
from reward_tuning.tuning.matching import matching_step, velocities
from reward_tuning.tuning.matching_draws import Levels
from reward_tuning.tuning.sampled_clips import SampledClips
from reward_tuning.tuning.step import BatchReport
from reward_tuning.tuning.trainer import optimiser_step
from tests.reward_tuning.tuning import test_step as steps
from tests.reward_tuning.tuning import test_trainer as runs
from tests.reward_tuning.tuning.test_further import moved
from tests.reward_tuning.tuning.test_replay import extra_inputs

sampler = steps.sampler
world, text_cache = runs.world, runs.text_cache
PROMPTS = steps.PROMPTS
ADVANTAGES = torch.tensor([0.8, -1.7], dtype=torch.float64)
LEVELS = Levels(torch.tensor([[0.25, 0.4], [0.75, 0.9]]), ((11, 12), (13, 14)))


@pytest.fixture(scope="module")
def clips(sampler: ClipSampler) -> SampledClips:
    shape = sampler.generator.latent_shape(2, *sampler.size)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(1)).double()
    batch = Batch(PROMPTS, [7, 8], steps.batch().plan)
    return SampledClips(batch, latents, torch.zeros(2), BatchReport(0.0, {}, 0.0))


def by_hand(sampler: ClipSampler, clips: SampledClips, clip: int, draw: int) -> tuple[Tensor, ...]:
    """v and u of one clip at one of its levels, the transformer called by hand: no guidance."""
    s, seed = float(LEVELS.sigmas[draw, clip]), LEVELS.noise_seeds[draw][clip]
    x = clips.latents[clip]
    e = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).double()
    v = sampler.generator.transformer(
        ((1 - s) * x + s * e)[None],
        torch.tensor([1000 * s], dtype=torch.float64),
        encoder_hidden_states=sampler.states[PROMPTS[clip].text][None],
        return_dict=False,
        **extra_inputs(sampler, x),
    )[0][0]
    return v, e - x


def gradient(sampler: ClipSampler, clips: SampledClips, method: MatchingMethod, **options: Any):  # noqa: ANN201
    own = steps.parameters(sampler)
    for p in own:
        p.grad = None
    found = matching_step(sampler, method, clips, ADVANTAGES, LEVELS, **options)
    return found, [p.grad.clone() for p in own if p.grad is not None]


PLACES = [(clip, draw) for clip in range(2) for draw in range(2)]


def test_awm_is_matching_weighted_by_the_advantage(
    sampler: ClipSampler, clips: SampledClips
) -> None:
    total = errors = torch.zeros((), dtype=torch.float64)
    for clip, draw in PLACES:
        v, u = by_hand(sampler, clips, clip, draw)
        error = (v - u).square().mean()
        total, errors = total + ADVANTAGES[clip] * error / 4, errors + error.detach() / 4
    expected = torch.autograd.grad(total, steps.parameters(sampler))
    found, got = gradient(sampler, clips, AWM(kind="awm"))
    assert steps.relative(got, list(expected)) <= 1e-6
    assert found.loss == pytest.approx(float(total.detach()), rel=1e-5)
    assert found.error == pytest.approx(float(errors), rel=1e-6)
    assert (found.drift, found.moved) == (None, 0.0)


def test_nft_looks_back_at_the_adapter_that_sampled(
    sampler: ClipSampler, clips: SampledClips
) -> None:
    old = velocities(sampler, clips, LEVELS)
    before = {at: by_hand(sampler, clips, *at)[0].detach() for at in PLACES}
    total = torch.zeros((), dtype=torch.float64)
    with moved(sampler, 0.05):
        for clip, draw in PLACES:
            v, u = by_hand(sampler, clips, clip, draw)
            r = 0.5 + 0.5 * max(-1.0, min(1.0, float(ADVANTAGES[clip])))
            plus = 0.5 * before[clip, draw] + 0.5 * v
            minus = 1.5 * before[clip, draw] - 0.5 * v
            pair = r * (plus - u).square().mean() + (1 - r) * (minus - u).square().mean()
            total = total + pair / 4
        expected = torch.autograd.grad(total, steps.parameters(sampler))
        found, got = gradient(sampler, clips, NFT(kind="nft", beta=0.5), old=old)
    assert steps.relative(got, list(expected)) <= 1e-6
    assert found.loss == pytest.approx(float(total.detach()), rel=1e-6)
    assert found.moved > 1e-3


def test_the_anchor_holds_the_velocity_at_these_points(
    sampler: ClipSampler, clips: SampledClips
) -> None:
    total = torch.zeros((), dtype=torch.float64)
    for clip, draw in PLACES:
        v, _ = by_hand(sampler, clips, clip, draw)
        with torch.no_grad(), scaled(sampler.generator.transformer, 0.0):
            base, _ = by_hand(sampler, clips, clip, draw)
        total = total + (v - base).square().mean() / 4
    pull = torch.autograd.grad(0.3 * total, steps.parameters(sampler))
    _, plain = gradient(sampler, clips, AWM(kind="awm"))
    found, got = gradient(sampler, clips, AWM(kind="awm"), anchor=0.3)
    assert steps.relative([a - b for a, b in zip(got, plain, strict=True)], list(pull)) <= 1e-5
    assert found.drift == pytest.approx(float(total.detach()), rel=1e-6)


def test_a_clip_of_no_advantage_gives_no_gradient(
    sampler: ClipSampler, clips: SampledClips
) -> None:
    for method in (AWM(kind="awm"), NFT(kind="nft")):
        own = steps.parameters(sampler)
        for p in own:
            p.grad = None
        matching_step(sampler, method, clips, torch.zeros(2), LEVELS)
        assert max(float(p.grad.abs().max()) for p in own if p.grad is not None) < 1e-12


# --- in a run

METHODS = ("{kind: awm, draws: 2, normalise: group}", "{kind: nft, draws: 2}")
FOUR = ("train.batch_size=4", "train.clips_per_prompt=2")


def one_step(world: Path, folder: Path, *keys: str) -> tuple[dict[str, Any], list[Tensor], Any]:
    recipe, parts, state = runs.prepared(world, folder, *keys)
    row = optimiser_step(recipe, parts, state, Accelerator())
    return row, [p.grad.clone() for p in parts.parameters if p.grad is not None], parts


@pytest.mark.parametrize("method", METHODS)
def test_a_step_and_its_row(world: Path, tmp_path: Path, method: str) -> None:
    calls: list[bool] = []
    recipe, parts, state = runs.prepared(world, tmp_path, f"method={method}", *FOUR)
    hook = parts.sampler.generator.transformer.register_forward_hook(
        lambda *_: calls.append(torch.is_grad_enabled())
    )
    with hook:
        row = optimiser_step(recipe, parts, state, Accelerator())
    assert calls == [False] * 4 + [True] * 2
    assert row["loss"] == pytest.approx(-row["reward"]["clip"])
    assert row["active_steps"] == []
    assert row["grad_norm"] > 0
    assert row["matching"]["deviation"] > 0
    assert row["matching"]["error"] > 0
    # of two clips each is one standard deviation from their mean
    assert row["matching"]["advantage"] == pytest.approx(1.0, abs=1e-9 if "awm" in method else 0.5)
    assert set(row["seconds"]) == {"rollout", "reward", "matching", "update", "step"}
    assert (state.step, state.position) == (1, 4)


@pytest.mark.parametrize("normalise", ["group", "batch", "none"])
def test_accumulated_batches_are_one_batch(world: Path, tmp_path: Path, normalise: str) -> None:
    method = f"method={{kind: nft, draws: 2, normalise: {normalise}}}"
    limit = "train.max_grad_norm=null"
    whole, expected, _ = one_step(world, tmp_path / "a", method, *FOUR, limit)
    parts = ("train.batch_size=2", "train.clips_per_prompt=2", "train.gradient_accumulation=2")
    row, got, _ = one_step(world, tmp_path / "b", method, *parts, limit)
    assert steps.relative(got, expected) <= 1e-6
    for key in ("advantage", "deviation", "error", "loss"):
        assert row["matching"][key] == pytest.approx(whole["matching"][key], rel=1e-5)


def test_further_updates(world: Path, tmp_path: Path) -> None:
    keys = ("train.updates_per_rollout=3", "train.learning_rate=1e-3", "train.reuse_limit=10.0")
    recipe, parts, state = runs.prepared(world, tmp_path, f"method={METHODS[1]}", *FOUR, *keys)
    calls: list[bool] = []
    hook = parts.sampler.generator.transformer.register_forward_hook(
        lambda *_: calls.append(torch.is_grad_enabled())
    )
    with hook:
        row = optimiser_step(recipe, parts, state, Accelerator())
    # rollout; the old velocities of two updates; three updates of two levels
    assert calls == [False] * 4 + [False] * 4 + [True] * 6
    assert row["further"]["updates"] == 2
    assert 1e-6 < row["further"]["rerun_error"] < 0.1
    assert int(state.optimiser.state[parts.parameters[0]]["step"]) == 3


def test_the_limit_ends_them(world: Path, tmp_path: Path) -> None:
    keys = ("train.updates_per_rollout=3", "train.reuse_limit=1e-9")
    row, _, parts = one_step(world, tmp_path, f"method={METHODS[0]}", *FOUR, *keys)
    assert row["further"]["updates"] == 0
    assert row["further"]["grad_norm"] is None
    _, _, once = one_step(world, tmp_path, f"method={METHODS[0]}", *FOUR)
    for a, b in zip(parts.parameters, once.parameters, strict=True):
        assert torch.equal(a, b)


def test_equal_scores_train_nothing_and_say_so(world: Path, tmp_path: Path) -> None:
    recipe, parts, state = runs.prepared(world, tmp_path, f"method={METHODS[0]}", *FOUR)
    flat = [replace(judge, weight=1.0, target=-9.0, mean=0.0) for judge in parts.judges]
    row = optimiser_step(recipe, replace(parts, judges=flat), state, Accelerator())
    assert row["grad_norm"] == 0.0
    assert row["loss"] == 0.0
    assert row["matching"]["advantage"] == 0.0
    assert (state.idle_steps, state.bad_steps) == (1, 0)


def test_a_judge_that_tells_no_clip_from_another_is_named(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, parts, state = runs.prepared(world, tmp_path, f"method={METHODS[0]}", *FOUR)
    score = "reward_tuning.judges.judge.FramedJudge._score_judged"
    monkeypatch.setattr(score, lambda self, frames, prompts: torch.full((len(frames),), 0.3))
    told: list[str] = []
    for _ in range(5):
        optimiser_step(
            recipe, parts, state, Accelerator(), lambda event: told.append(event.note or "")
        )
    assert sum("have the same score of clip" in note for note in told) == 1


def test_a_step_that_is_not_finite_is_skipped(world: Path, tmp_path: Path) -> None:
    recipe, parts, state = runs.prepared(world, tmp_path, f"method={METHODS[0]}", *FOUR)
    before = [p.detach().clone() for p in parts.parameters]
    states = {text: math.nan * of for text, of in parts.sampler.states.items()}
    broken = replace(parts, sampler=replace(parts.sampler, states=states))
    row = optimiser_step(recipe, broken, state, Accelerator())
    assert math.isnan(row["loss"])
    assert row["matching"]["error"] is None
    assert (state.step, state.bad_steps) == (1, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, parts.parameters, strict=True))


def test_with_replay_group_and_cheap_rollouts(world: Path, tmp_path: Path) -> None:
    keys = ("train.group.clips=4", "train.group.steps=2", "rollout.dtype=bfloat16")
    row, _, _ = one_step(world, tmp_path, f"method={METHODS[0]}", *FOUR, *keys)
    assert row["group"]["clips"] == 8
    assert row["grad_norm"] > 0
