"""One batch: its gradient against plain autograd, its numbers, its bad cases."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from base_model.sampling.guidance import Guidance, NegativeBranch, guided_velocity
from reward_tuning.errors import TuningError
from reward_tuning.gradient.engine import rollout
from reward_tuning.gradient.leaps import leap_likeness
from reward_tuning.gradient.methods import make_plan
from reward_tuning.judges.augmentation import Augmentation
from reward_tuning.judges.clip_terms import ClipTerms
from reward_tuning.judges.judge import FramedJudge, LatentJudge, judged_window
from reward_tuning.lora.adapter import scaled
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.seeds import derive_seed
from reward_tuning.tuning.draws import Batch
from reward_tuning.tuning.step import (
    BatchReport,
    StepOptions,
    anchored_steps,
    latent_motion,
    reward_step,
)
from rewards import load_latent_reward, load_reward
from tests.reward_tuning import double_sampler
from tests.reward_tuning.double_sampler import PROMPTS, SIGMAS
from tests.rewards.small_latent import ARCHITECTURE as LATENT
from tests.rewards.small_latent import latent_file
from tests.rewards.small_latent import random_state as latent_state
from tests.rewards.tiny_clip import ARCHITECTURE, flat_file, random_state

sampler = double_sampler.sampler


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> FramedJudge:
    """Sees the first and the fourth frame."""
    path = flat_file(
        tmp_path_factory.mktemp("judge"),
        random_state(ARCHITECTURE),
        architecture=json.dumps(ARCHITECTURE),
    )
    reward = load_reward("clip", path, dtype=torch.float64)
    return FramedJudge(reward, "clip", (0, 3), weight=2.0)


def parameters(sampler: ClipSampler) -> list[Tensor]:
    return [p for p in sampler.generator.transformer.parameters() if p.requires_grad]


def batch(kind: str = "drtune", **options: Any) -> Batch:
    plan = make_plan(
        kind, torch.Generator().manual_seed(1), SIGMAS, **{"active_steps": 2} | options
    )
    return Batch(PROMPTS, [7, 8], plan)


def step(
    sampler: ClipSampler,
    judges: Sequence[FramedJudge],
    one: Batch,
    *,
    negative: NegativeBranch = "detached",
    **options: Any,
) -> tuple[BatchReport, list[Tensor]]:
    own = parameters(sampler)
    for parameter in own:
        parameter.grad = None
    report = reward_step(
        replace(sampler, negative=negative),
        judges,
        one,
        SIGMAS,
        parameters=own,
        options=StepOptions(**options),
    )
    grads = [parameter.grad for parameter in own]
    return report, [grad.clone() for grad in grads if grad is not None]


def reference(
    sampler: ClipSampler,
    judge: FramedJudge,
    one: Batch,
    negative: NegativeBranch,
    *,
    anchor: float = 0.0,
    anchored: Mapping[int, float] | None = None,
) -> tuple[float, float, list[Tensor]]:
    """Loss, anchor and gradient by one autograd graph over the whole chain.

    With a detached branch a velocity's input keeps a third of its gradient, at guidance 3.
    """
    generator, plan = sampler.generator, one.plan
    divisor = 3.0 if negative == "detached" else 1.0
    share = plan.nested / divisor
    texts = torch.stack([sampler.states[prompt.text] for prompt in PROMPTS])
    condition = sampler.condition([prompt.text for prompt in PROMPTS])
    assert torch.equal(condition.positive.text, texts)
    shape = generator.latent_shape(2, *sampler.size)
    x = generator.initial_noise(shape, one.noise_seeds)
    pull = torch.zeros((), dtype=torch.float64)
    for i in range(plan.steps):
        seen = share * x + (1.0 - share) * x.detach()
        v = guided_velocity(generator, seen, SIGMAS[i], condition, Guidance(3.0), negative)
        if i not in plan.active:
            v = v.detach()
        elif anchor:
            with torch.no_grad(), scaled(generator.transformer, 0.0):
                base = guided_velocity(generator, x, SIGMAS[i], condition, Guidance(3.0), negative)
            factor = 1.0 if anchored is None else anchored.get(i, 0.0)
            pull = pull + factor * (v - base).square().mean()
        x = x + (SIGMAS[i + 1] - SIGMAS[i]) * v
    frames = generator.decode(x)
    scores = judge.reward(frames[:, [0, 3]], [prompt.reward_text for prompt in PROMPTS])
    loss = -2.0 * scores.mean()
    total = plan.gradient_scale * loss / divisor + anchor * pull
    grads = torch.autograd.grad(total, parameters(sampler))
    return float(loss.detach()), float(pull.detach()), list(grads)


def relative(got: list[Tensor], expected: list[Tensor]) -> float:
    gap = sum(float((a - b).square().sum()) for a, b in zip(got, expected, strict=True))
    return math.sqrt(gap / sum(float(b.square().sum()) for b in expected))


@pytest.mark.parametrize("negative", ["detached", "joint", "none"])
def test_gradient_is_that_of_the_whole_chain(
    sampler: ClipSampler, judge: FramedJudge, negative: NegativeBranch
) -> None:
    one = batch(early_stop=False)
    report, got = step(sampler, [judge], one, negative=negative)
    loss, _, expected = reference(sampler, judge, one, negative)
    assert report.loss == pytest.approx(loss, rel=1e-9)
    assert relative(got, expected) <= 1e-9
    assert report.finite
    assert [seen.step for seen in report.steps] == sorted(one.plan.active, reverse=True)


@pytest.mark.parametrize("negative", ["detached", "joint", "none"])
@pytest.mark.parametrize("anchor", [0.0, 0.3])
def test_several_steps_in_one_call_give_the_same_gradient(
    sampler: ClipSampler, judge: FramedJudge, negative: NegativeBranch, anchor: float
) -> None:
    """Four active steps, three in a call and one alone, of another sigma each."""
    one = batch(active_steps=4, early_stop=False, smallest_step=0.0)
    options: dict[str, Any] = {"negative": negative, "anchor": anchor}
    report, got = step(sampler, [judge], one, steps_at_once=3, **options)
    _, _, expected = reference(sampler, judge, one, negative, anchor=anchor)
    assert relative(got, expected) <= 1e-9
    alone, _ = step(sampler, [judge], one, **options)
    assert report.drift == (None if not anchor else pytest.approx(alone.drift, rel=1e-9))
    assert [seen.step for seen in report.steps] == [3, 2, 1, 0]
    assert [seen.gradient_norm is None for seen in report.steps] == [True, True, True, False]
    assert report.steps[3].gradient_norm == pytest.approx(alone.steps[3].gradient_norm, rel=1e-9)
    assert all(seen.rerun_error < 1e-12 for seen in report.steps)


INTERVAL = Guidance(3.0, interval=(0.6, 0.9))  # of the levels 1, 0.845, 0.577, 0.003: the second


@pytest.mark.parametrize("negative", ["detached", "joint"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("drtune", {"active_steps": 4, "early_stop": False, "smallest_step": 0.0}),
        ("draft", {}),
        ("draft_k", {"active_steps": 3, "smallest_step": 0.0, "nested": 0.5}),
    ],
)
@pytest.mark.parametrize("at_once", [1, 3])
def test_gradient_with_an_interval_of_guidance(
    sampler: ClipSampler,
    judge: FramedJudge,
    negative: NegativeBranch,
    kind: str,
    options: dict[str, Any],
    at_once: int,
) -> None:
    """By one graph over the whole chain.

    `joint` is exact. With a detached branch each velocity has the derivative of its positive
    branch, inside the interval and outside.
    """
    plan = make_plan(kind, torch.Generator().manual_seed(1), SIGMAS, **options)
    one = Batch(PROMPTS, [7, 8], plan)
    generator = sampler.generator
    condition = sampler.condition([prompt.text for prompt in PROMPTS])
    x = sampler.noise(one.noise_seeds)
    for i in range(4):
        seen = plan.nested * x + (1.0 - plan.nested) * x.detach()
        v = v_positive = generator.velocity(seen, SIGMAS[i], condition.positive)
        if i == 1:
            v_negative = generator.velocity(seen, SIGMAS[i], condition.negative)
            v = v_negative + 3.0 * (v_positive - v_negative)
        if negative == "detached":
            v = v.detach() + (v_positive - v_positive.detach())
        x = x + (SIGMAS[i + 1] - SIGMAS[i]) * (v if i in plan.active else v.detach())
    frames = generator.decode(x)[:, [0, 3]]
    loss = -2.0 * judge.reward(frames, [prompt.reward_text for prompt in PROMPTS]).mean()
    expected = torch.autograd.grad(plan.gradient_scale * loss, parameters(sampler))
    some = replace(sampler, guidance=INTERVAL)
    report, got = step(some, [judge], one, negative=negative, steps_at_once=at_once)
    assert report.loss == pytest.approx(float(loss.detach()), rel=1e-9)
    # The model's norms work in float32: another factor rounds otherwise.
    assert relative(got, list(expected)) <= (1e-9 if negative == "joint" else 1e-7)


def test_several_steps_at_once_take_as_many_calls_fewer(
    sampler: ClipSampler, judge: FramedJudge
) -> None:
    sizes: list[int] = []
    hook = sampler.generator.transformer.register_forward_pre_hook(
        lambda module, args: sizes.append(len(args[0]))
    )
    with hook:
        step(sampler, [judge], batch(active_steps=4, early_stop=False, smallest_step=0.0))
        alone = sizes.copy()
        sizes.clear()
        step(
            sampler,
            [judge],
            batch(active_steps=4, early_stop=False, smallest_step=0.0),
            steps_at_once=2,
        )
    assert alone == 4 * [4] + 4 * [2]  # both branches of two clips, then the positive one
    assert sizes == 4 * [4] + 2 * [4]


def test_steps_that_know_of_each_other_are_swept_alone(
    sampler: ClipSampler, judge: FramedJudge
) -> None:
    one = batch("draft_k", active_steps=3, smallest_step=0.0)
    report, got = step(sampler, [judge], one, steps_at_once=3)
    assert relative(got, step(sampler, [judge], one)[1]) == 0.0
    assert all(seen.gradient_norm is not None for seen in report.steps)


def test_nested_gradient_with_a_remembered_negative_branch(
    sampler: ClipSampler, judge: FramedJudge
) -> None:
    one = batch("draft_k", active_steps=3, smallest_step=0.0)
    _, got = step(sampler, [judge], one)
    _, _, expected = reference(sampler, judge, one, "detached")
    assert relative(got, expected) <= 1e-9
    raw = step(sampler, [judge], one, divide_by_guidance=False)[1]
    # The model's norms work in float32: another factor rounds otherwise.
    assert relative(raw, [3.0 * grad for grad in expected]) <= 1e-7


def test_anchor_and_drift(sampler: ClipSampler, judge: FramedJudge) -> None:
    one = batch(early_stop=False)
    report, got = step(sampler, [judge], one, anchor=0.5)
    _, pull, expected = reference(sampler, judge, one, "detached", anchor=0.5)
    assert relative(got, expected) <= 1e-9
    assert report.drift == pytest.approx(pull / 2, rel=1e-9)  # two active steps
    assert pull > 1e-4


def test_an_anchor_on_one_of_two_active_steps(sampler: ClipSampler, judge: FramedJudge) -> None:
    """Which one is drawn by the noise; it counts twice, so that the mean stays the same."""
    chosen = set()
    for noise in range(4):
        one = replace(batch(early_stop=False), noise_seeds=(noise, 7))
        ((place, factor),) = anchored_steps(one.plan.active, 1, noise).items()
        assert (place in one.plan.active, factor) == (True, 2.0)
        chosen.add(place)
        if noise > 1:
            continue
        report, got = step(sampler, [judge], one, anchor=0.5, anchor_steps=1)
        _, pull, expected = reference(
            sampler, judge, one, "detached", anchor=0.5, anchored={place: 2.0}
        )
        assert relative(got, expected) <= 1e-9
        assert report.drift == pytest.approx(pull / 2, rel=1e-9)
    assert chosen == set(one.plan.active)
    assert anchored_steps((1, 3), 2, 0) == anchored_steps((1, 3), None, 0) == {1: 1.0, 3: 1.0}


def look_references(
    sampler: ClipSampler, judge: FramedJudge, one: Batch
) -> list[tuple[float, list[Tensor]]]:
    """Loss and gradient of each fresh look at the end, by autograd of its definition."""
    generator, condition = sampler.generator, sampler.condition([p.text for p in PROMPTS])

    def velocity(x: Tensor, sigma: Tensor) -> Tensor:
        return guided_velocity(generator, x, sigma, condition, Guidance(3.0), "detached")

    noise = sampler.noise(one.noise_seeds)
    end = noise
    with torch.no_grad():
        for i in range(4):
            end = end + (SIGMAS[i + 1] - SIGMAS[i]) * velocity(end, SIGMAS[i])
    found = []
    for number, look in enumerate(one.plan.renoised):
        e = noise
        if not look.own_noise:
            e = sampler.noise([derive_seed(seed, "look", number) for seed in one.noise_seeds])
        s, to = look.sigma, look.sigma_to
        noised = (1 - s) * end + s * e
        v = velocity(noised, torch.tensor(s, dtype=torch.float64))
        x = (noised + (to - s) * v - to * e) / (1 - to)
        frames = generator.decode(x)[:, [0, 3]]
        loss = -2.0 * judge.reward(frames, [p.reward_text for p in PROMPTS]).mean()
        factor = one.plan.look(look).gradient_scale * look.share / 3.0
        grads = torch.autograd.grad(factor * loss, parameters(sampler))
        found.append((float(loss.detach()), list(grads)))
    return found


@pytest.mark.parametrize("kind", ["draft_lv", "direct_align"])
def test_fresh_looks_at_the_end(sampler: ClipSampler, judge: FramedJudge, kind: str) -> None:
    """Loss and gradient are means over the chain's end, where it is active, and its looks."""
    plan = make_plan(kind, torch.Generator().manual_seed(2), SIGMAS)
    one = Batch(PROMPTS, [7, 8], plan)
    views = look_references(sampler, judge, one)
    if plan.active:
        loss, _, grads = reference(sampler, judge, one, "detached")
        views.insert(0, (loss, grads))
    assert len(views) == {"draft_lv": 3, "direct_align": 1}[kind]
    report, got = step(sampler, [judge], one)
    expected = [sum(of) / len(views) for of in zip(*(grads for _, grads in views), strict=True)]
    assert report.loss == pytest.approx(sum(loss for loss, _ in views) / len(views), rel=1e-9)
    # The model's norms work in float32: another factor rounds otherwise.
    assert relative(got, expected) <= 1e-7
    looks = [seen for seen in report.steps if seen.step >= plan.steps]
    assert [seen.step for seen in looks] == [4 + n for n in range(len(plan.renoised))]
    anchored, pulled = step(sampler, [judge], one, anchor=0.5)
    assert anchored.drift is not None
    assert anchored.drift > 1e-5
    assert relative(pulled, got) > 1e-4


def test_leaps_weigh_clips_by_their_likeness(sampler: ClipSampler, judge: FramedJudge) -> None:
    """The gradient of a batch is that of its clips, each times its own weight."""
    generator = torch.Generator().manual_seed(4)
    plans = [make_plan("leapalign", generator, SIGMAS, leap_floor=1e-3) for _ in range(20)]
    plan = next(plan for plan in plans if plan.active == (0, 2))  # both leaps over a step
    even = replace(plan, leap_floor=None)
    condition = sampler.condition([prompt.text for prompt in PROMPTS])
    velocity = sampler.velocity(condition, SIGMAS)
    states = rollout(velocity, sampler.noise([7, 8]), SIGMAS, 4)
    weights = leap_likeness(states, SIGMAS, plan.leaps, 1e-3)
    assert float((weights[0] - weights[1]).abs()) > 1e-3
    clips = [
        step(sampler, [judge], Batch([prompt], [seed], even))
        for prompt, seed in zip(PROMPTS, (7, 8), strict=True)
    ]
    expected = [
        (float(weights[0]) * a + float(weights[1]) * b) / 2
        for a, b in zip(clips[0][1], clips[1][1], strict=True)
    ]
    report, got = step(sampler, [judge], Batch(PROMPTS, [7, 8], plan))
    assert relative(got, expected) <= 1e-6
    assert report.loss == pytest.approx(
        sum(float(w) * one.loss for w, (one, _) in zip(weights, clips, strict=True)) / 2, rel=1e-9
    )


@pytest.mark.parametrize("negative", ["detached", "joint"])
def test_a_batch_may_have_its_own_guidance(
    sampler: ClipSampler, judge: FramedJudge, negative: NegativeBranch
) -> None:
    one = batch(early_stop=False)
    other = replace(sampler, guidance=Guidance(1.5, 0.6))
    expected, grads = step(other, [judge], one, negative=negative)
    mild = replace(sampler, guidance=Guidance(3.0, 0.6))
    own, found = step(mild, [judge], replace(one, guidance_scale=1.5), negative=negative)
    assert own.loss == expected.loss
    assert relative(found, grads) == 0.0
    plain, _ = step(replace(sampler, guidance=Guidance(1.5)), [judge], one, negative=negative)
    assert plain.loss != own.loss


def test_normalised_steps_and_limited_adjoints(sampler: ClipSampler, judge: FramedJudge) -> None:
    one = batch(early_stop=False)
    report, grads = step(sampler, [judge], one, normalise_steps=True, share=0.5)
    _, plain = step(sampler, [judge], one)
    assert relative(grads, plain) > 1e-2
    length = math.sqrt(sum(float(grad.square().sum()) for grad in grads))
    assert 0.0 < length <= 0.5 + 1e-9  # two steps of 0.25 each, not quite of one direction
    assert len(report.steps) == 2
    chain = Batch(PROMPTS, [7, 8], make_plan("draft", torch.Generator(), SIGMAS))
    _, exact = step(sampler, [judge], chain)
    _, held = step(sampler, [judge], chain, adjoint_limit=1.0)
    assert relative(held, exact) > 1e-6


def test_share_scales_reward_and_anchor_alike(sampler: ClipSampler, judge: FramedJudge) -> None:
    one = batch()
    whole, full = step(sampler, [judge], one, anchor=0.5)
    part, quarter = step(sampler, [judge], one, anchor=0.5, share=0.25)
    assert relative([4 * grad for grad in quarter], full) <= 1e-12
    assert part.drift == pytest.approx(whole.drift)
    assert part.loss == whole.loss


def test_judges_add_up_and_are_told_apart(sampler: ClipSampler, judge: FramedJudge) -> None:
    one = batch()
    other = FramedJudge(judge.reward, "hinged", (1,), weight=0.5, target=0.9)
    first, a = step(sampler, [judge], one)
    second, b = step(sampler, [other], one)
    both, sum_ = step(sampler, [judge, other], one)
    assert both.rewards == pytest.approx(first.rewards | second.rewards)
    assert both.loss == pytest.approx(first.loss + second.loss)
    assert relative(sum_, [x + y for x, y in zip(a, b, strict=True)]) <= 1e-6


def test_what_a_judge_sees_in_training(sampler: ClipSampler, judge: FramedJudge) -> None:
    """Unit, augmentation and the worst nearby change the loss, and never the plain scores."""
    one = batch()
    plain, grads = step(sampler, [judge], one)
    halved, half = step(sampler, [replace(judge, std=2.0)], one)
    assert halved.loss == pytest.approx(plain.loss / 2)
    assert halved.rewards == plain.rewards
    assert relative([2 * grad for grad in half], grads) <= 1e-6
    noisy = replace(judge, augmentation=Augmentation(crop=0.3, noise=0.1))
    seen, changed = step(sampler, [noisy], one)
    again, same = step(sampler, [noisy], one)
    assert seen.loss == again.loss != plain.loss
    assert relative(same, changed) == 0.0
    flat, _ = step(sampler, [replace(judge, robust_radius=0.02)], one)
    assert flat.loss > plain.loss  # a lower score
    frames = torch.rand(1, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    wide = replace(noisy, positions=(0, 1), robust_radius=0.02)
    bare = replace(judge, positions=(0, 1))
    assert torch.equal(wide.scores(frames, ["a cat"]), bare.scores(frames, ["a cat"]))


def test_judges_in_conflict_are_merged(sampler: ClipSampler, judge: FramedJudge) -> None:
    """A judge and most of its opposite: the sum is nearly nothing, without conflict it is 0."""
    one = batch()
    against = replace(judge, label="against", weight=-1.9)
    _, summed = step(sampler, [judge, against], one)
    _, merged = step(sampler, [judge, against], one, merge="pcgrad")
    _, alone = step(sampler, [judge], one)
    assert relative([20 * grad for grad in summed], alone) <= 1e-4
    assert max(float(grad.abs().max()) for grad in merged) <= 1e-6 * max(
        float(grad.abs().max()) for grad in alone
    )
    other = replace(judge, label="other", weight=0.5)
    _, both = step(sampler, [judge, other], one)
    _, agreed = step(sampler, [judge, other], one, merge="pcgrad")
    assert relative(agreed, both) <= 1e-6


def test_terms_on_whole_clips_join_the_judges(sampler: ClipSampler, judge: FramedJudge) -> None:
    """Each adds its weighted value to the loss, and its own gradient; both are reported."""
    one = batch()
    every = replace(judge, positions=(0, 1, 2, 3, 4))
    plain, grads = step(sampler, [every], one)
    moving, moved = step(sampler, [every], one, terms=ClipTerms(motion=3.0))
    assert moving.loss == pytest.approx(plain.loss - 3.0 * moving.rewards["motion_term"], rel=1e-6)
    assert moving.rewards["motion_term"] > 0.0
    assert relative(moved, grads) > 1e-4
    enough = ClipTerms(motion=3.0, motion_target=1e-9)
    held, same = step(sampler, [every], one, terms=enough)
    assert held.loss == pytest.approx(plain.loss)
    assert relative(same, grads) <= 1e-6
    pair = ClipTerms(repulsion=0.5, clips_per_prompt=2)
    apart, pushed = step(sampler, [every], one, terms=pair)
    assert apart.loss == pytest.approx(plain.loss + 0.5 * apart.rewards["likeness"], rel=1e-6)
    assert 0.0 < apart.rewards["likeness"] < 1.0
    assert relative(pushed, grads) > 1e-4

    def without_tower(frames: Tensor, prompts: Sequence[str]) -> Tensor:
        return frames.flatten(1).mean(1)

    without_tower.name = "bare"  # type: ignore[attr-defined]
    bare = FramedJudge(without_tower, "bare", (0, 1))  # type: ignore[arg-type]
    with pytest.raises(TuningError, match="the first judge, bare, has no image features"):
        step(sampler, [bare, every], one, terms=pair)


def test_a_judge_of_noisy_latents_needs_no_decoder(
    sampler: ClipSampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PRFL: one step's velocity, the judge at (x_{s+1}, sigma_{s+1}), by plain autograd."""
    architecture = LATENT | {"latent_cfg": LATENT["latent_cfg"] | {"channels": 16}}
    path = latent_file(tmp_path, latent_state(architecture), architecture=json.dumps(architecture))
    reward = load_latent_reward(path, dtype=torch.float64)
    judge = LatentJudge(reward, "latent", weight=2.0, std=0.5)
    plan = make_plan("prfl", torch.Generator().manual_seed(3), SIGMAS)
    one = Batch(PROMPTS, [7, 8], plan)

    def refused(*arguments: object, **options: object) -> Tensor:
        raise AssertionError("decoded")

    monkeypatch.setattr(sampler.generator, "decode", refused)
    report, got = step(sampler, [judge], one)
    (s,) = plan.active
    condition = sampler.condition([prompt.text for prompt in PROMPTS])
    velocity = sampler.velocity(condition, SIGMAS)
    states = rollout(velocity, sampler.noise([7, 8]), SIGMAS, s)
    x = states[-1] + (SIGMAS[s + 1] - SIGMAS[s]) * velocity(states[-1], s)
    texts = [prompt.reward_text for prompt in PROMPTS]
    scores = reward(x, float(SIGMAS[s + 1]), texts)
    expected = torch.autograd.grad(-4.0 * scores.mean() / 3.0, parameters(sampler))
    assert report.loss == pytest.approx(-4.0 * float(scores.mean().detach()), rel=1e-6)
    assert report.rewards["latent"] == pytest.approx(float(scores.mean().detach()), rel=1e-6)
    assert relative(got, list(expected)) <= 1e-6


def test_a_reached_target_gives_no_gradient(sampler: ClipSampler, judge: FramedJudge) -> None:
    reached = FramedJudge(judge.reward, "clip", (0,), target=-1.0)
    report, grads = step(sampler, [reached], batch())
    assert report.loss == 0.0
    assert all(not grad.any() for grad in grads)


def test_only_the_judged_window_is_decoded(
    sampler: ClipSampler, judge: FramedJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = FramedJudge(judge.reward, "late", (2, 3))
    assert judged_window([judge, late]) == slice(0, 4)
    assert judged_window([late]) == slice(2, 4)
    windows: list[Any] = []
    decode = sampler.generator.decode

    def counted(latents: Tensor, frames: slice | None = None, **options: Any) -> Tensor:
        windows.append(frames)
        assert options == {"detach_context": False, "checkpointing": True, "by": "vae"}
        return decode(latents, frames)

    monkeypatch.setattr(sampler.generator, "decode", counted)
    step(sampler, [late, late], batch())
    assert windows == [slice(2, 4)]
    one = FramedJudge(judge.reward, "one", (0, 1, 2, 3), random_frames=1)
    windows.clear()
    first, again = (step(sampler, [one], batch())[0].rewards for _ in range(2))
    assert first == again
    assert windows[0] == windows[1]  # drawn from the batch's seed, and only that frame decoded
    assert windows[0].stop - windows[0].start == 1
    known = FramedJudge(judge.reward, "known", (windows[0].start,))
    assert step(sampler, [known], batch())[0].rewards["known"] == first["one"]


def test_the_decoder_may_keep_its_activations(sampler: ClipSampler, judge: FramedJudge) -> None:
    """The same gradient, from a decoder that runs once."""
    runs: list[int] = []
    last = sampler.generator.vae.decoder.conv_act  # once for each latent
    hook = last.register_forward_pre_hook(lambda *_: runs.append(1))
    try:
        grads = {}
        for checkpointing in (True, False):
            told = replace(sampler, decoder_checkpointing=checkpointing)
            _, grads[checkpointing] = step(told, [judge], batch())
            runs.append(0)
    finally:
        hook.remove()
    recomputed = runs[: runs.index(0)]
    kept = runs[runs.index(0) + 1 : -1]
    # Two latents; an activation runs again with its latent, and once more before its own gradient.
    assert (len(recomputed), len(kept)) == (6, 2)
    for one, other in zip(grads[True], grads[False], strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-14)


def test_a_batch_may_judge_a_part_of_the_clip(sampler: ClipSampler, judge: FramedJudge) -> None:
    """Frames 1 to 4 of 5: the judge of two frames sees 1 and 4; latent 0 is context."""
    one = batch()
    every = replace(judge, positions=(0, 1, 2, 3, 4))
    two = replace(judge, positions=(0, 4))
    part = replace(one, frames=(1, 2, 3, 4))
    report, grads = step(sampler, [two, replace(every, label="every")], part)
    plain, _ = step(sampler, [replace(judge, positions=(1, 4))], one)
    assert report.rewards["clip"] == pytest.approx(plain.rewards["clip"])
    four, _ = step(sampler, [replace(judge, positions=(1, 2, 3, 4))], one)
    assert report.rewards["every"] == pytest.approx(four.rewards["clip"])
    _, exact = step(
        sampler,
        [replace(judge, positions=(1, 4)), replace(judge, positions=(1, 2, 3, 4), label="every")],
        one,
    )
    assert 1e-4 < relative(grads, exact) < 1.0  # the context's share is missing, and no more


def test_model_calls(sampler: ClipSampler, judge: FramedJudge) -> None:
    """Both guidance branches in one call of the rollout, then the positive one of active steps."""
    calls: list[tuple[int, bool]] = []
    hook = sampler.generator.transformer.register_forward_hook(
        lambda _, inputs, __: calls.append((len(inputs[0]), torch.is_grad_enabled()))
    )
    try:
        step(sampler, [judge], batch(early_stop=False))
    finally:
        hook.remove()
    assert calls == [(4, False)] * 4 + [(2, True)] * 2


def test_motion() -> None:
    latents = torch.tensor([0.0, 1.0, 4.0]).view(1, 1, 3, 1, 1).expand(2, 16, 3, 2, 2)
    assert latent_motion(latents) == pytest.approx(2.0)
    assert latent_motion(latents[:, :, :1]) == 0.0


def test_a_batch_that_is_bad_elsewhere_is_not_swept(
    sampler: ClipSampler, judge: FramedJudge
) -> None:
    """Weights that are shared need every process for a sweep."""
    good = Batch(PROMPTS, [7, 8], batch(early_stop=False).plan)
    others: list[bool] = []

    def agreed(mine: bool) -> bool:
        assert mine
        return others.pop(0)

    for others[:] in ([False], [True, False]):
        report, got = step(sampler, [judge], good, agreed=agreed)
        assert not others
        assert not report.finite
        assert all(not bool(gradient.any()) for gradient in got)
    others[:] = [True, True]
    report, got = step(sampler, [judge], good, agreed=agreed)
    assert report.finite
    assert any(bool(gradient.any()) for gradient in got)


def test_ranks_anchor_the_same_steps(sampler: ClipSampler, judge: FramedJudge) -> None:
    """By a seed of their common batch, not of each one's own clips."""
    plan = make_plan("draft", torch.Generator(), SIGMAS)

    def anchored(common: int | None, seeds: list[int]) -> list[bool]:
        drawn = Batch(PROMPTS, seeds, plan, common=common)
        report, _ = step(sampler, [judge], drawn, anchor=0.5, anchor_steps=1)
        return [one.step_loss > 0 for one in report.steps]

    assert anchored(5, [7, 8]) == anchored(5, [11, 12]) == anchored(None, [5, 8])
    assert len({tuple(anchored(common, [7, 8])) for common in range(6)}) > 1


@pytest.mark.parametrize("place", ["latents", "frames", "score"])
def test_nan_gives_no_gradient(
    sampler: ClipSampler, judge: FramedJudge, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    bad = judge
    if place == "latents":
        sampler = ClipSampler(
            sampler.generator,
            dict(sampler.states) | {"bad": sampler.states["bad"] * math.nan},
            "bad",
            Guidance(3.0),
            sampler.size,
        )
    elif place == "frames":
        decode = sampler.generator.decode
        monkeypatch.setattr(
            sampler.generator, "decode", lambda x, frames, **_: decode(x, frames) * math.inf
        )
    else:

        def score(frames: Tensor, prompts: Sequence[str]) -> Tensor:
            return frames.flatten(1).sum(1).log() * math.nan

        score.name = "score"  # type: ignore[attr-defined]
        bad = FramedJudge(score, "score", (0,))  # type: ignore[arg-type]
    report, grads = step(sampler, [bad], batch())
    assert not report.finite
    assert grads == []


@pytest.mark.parametrize("negative", ["detached", "joint"])
def test_adjoint_matching_is_draft_k_and_a_pull_to_the_base(
    sampler: ClipSampler, judge: FramedJudge, negative: NegativeBranch
) -> None:
    """The pull by autograd at the states of the rollout, which are constants to it."""
    keys: dict[str, Any] = {"active_steps": 3, "smallest_step": 0.0}
    draw, strength = torch.Generator(), 0.05
    plan = make_plan("adjoint_matching", draw, SIGMAS, strength=strength, **keys)
    report, got = step(sampler, [judge], Batch(PROMPTS, [7, 8], plan), negative=negative)
    chain = make_plan("draft_k", draw, SIGMAS, rescale=0.0, **keys)
    _, plain = step(sampler, [judge], Batch(PROMPTS, [7, 8], chain), negative=negative)
    condition = sampler.condition([prompt.text for prompt in PROMPTS])
    velocity = replace(sampler, negative=negative).velocity(condition, SIGMAS)
    states = rollout(velocity, sampler.noise([7, 8]), SIGMAS, 4)
    apart, lengths = torch.zeros((), dtype=torch.float64), 0.0
    for i in plan.active:
        with torch.no_grad(), scaled(sampler.generator.transformer, 0.0):
            base = velocity(states[i], i)
        length = float(SIGMAS[i] - SIGMAS[i + 1])
        apart = apart + length * (velocity(states[i], i) - base).square().mean()
        lengths += length
    weight = 0.5 / strength / (3.0 if negative == "detached" else 1.0)
    pull = torch.autograd.grad(weight * apart, parameters(sampler))
    # the norms of the model work in float32
    assert relative(got, [a + b for a, b in zip(plain, pull, strict=True)]) <= 1e-7
    assert relative(got, plain) > 1e-2
    assert report.drift == pytest.approx(float(apart.detach()) / lengths, rel=1e-9)
