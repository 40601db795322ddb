"""Judges whose gradient is estimated: in a batch, beside exact ones, in a run."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from reward_tuning.gradient.engine import adjoint_sweep
from reward_tuning.judges.background import Background
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.sampling.sampler import ClipSampler, RolloutVelocity
from reward_tuning.seeds import derive_seed
from reward_tuning.tuning.draws import Batch
from reward_tuning.tuning.estimated import Estimates
from reward_tuning.tuning.step import StepOptions, begin_batch, complete_batch
from reward_tuning.tuning.trainer import run
from reward_tuning.tuning.views import starting_noise
from rewards.core.black_box import Asking
from tests.reward_tuning.tiny_run import tiny_recipe
from tests.reward_tuning.tuning import test_step as steps
from tests.reward_tuning.tuning import test_trainer as runs
from tests.rewards.core.test_black_box import Levels

sampler, judge = steps.sampler, steps.judge
world, text_cache = runs.world, runs.text_cache
SIGMAS, PROMPTS, parameters = steps.SIGMAS, steps.PROMPTS, steps.parameters
TWO_OF_EACH = Estimates(clips=2, pairs=2, distance=0.4)


def four_clips(**options: Any) -> Batch:
    """Two clips of each of two prompts."""
    plan = steps.batch(early_stop=False, **options).plan
    return Batch([PROMPTS[0], PROMPTS[0], PROMPTS[1], PROMPTS[1]], [7, 8, 9, 10], plan)


def latents_and_scores(
    sampler: ClipSampler, judge: FramedJudge, batch: Batch
) -> tuple[Tensor, Tensor]:
    """The end of the chain of each clip, sampled on its own, and its score."""
    condition = sampler.condition(batch.prompts)
    velocity = sampler.velocity(condition, SIGMAS)
    x = starting_noise(sampler, batch)
    with torch.no_grad():
        for i in range(batch.plan.stop):
            x = x + (SIGMAS[i + 1] - SIGMAS[i]) * velocity(x, i)
        frames = sampler.generator.decode(x)
        return x, judge.scores(frames, [prompt.reward_text for prompt in batch.prompts])


def swept(sampler: ClipSampler, batch: Batch, g: Tensor) -> list[Tensor]:
    """The gradient of the parameters for a given one at the end."""
    own = parameters(sampler)
    for parameter in own:
        parameter.grad = None
    velocity = RolloutVelocity(sampler, sampler.condition(batch.prompts), SIGMAS)
    x, states = starting_noise(sampler, batch), []
    states.append(x)
    with torch.no_grad():
        for i in range(batch.plan.stop):
            states.append(states[-1] + (SIGMAS[i + 1] - SIGMAS[i]) * velocity(states[-1], i))
    adjoint_sweep(velocity, states, SIGMAS, batch.plan, g / sampler.guidance.scale)
    return [parameter.grad.clone() for parameter in own if parameter.grad is not None]


def assert_close(found: list[Tensor], wanted: list[Tensor], tolerance: float = 1e-9) -> None:
    assert len(found) == len(wanted) > 0
    a, b = (torch.cat([g.flatten() for g in of]) for of in (found, wanted))
    assert float(b.norm()) > 0
    assert float((a - b).norm() / b.norm()) < tolerance


def test_a_group_is_swept_with_its_covariance(sampler: ClipSampler, judge: FramedJudge) -> None:
    """Against the formula written out, clip by clip."""
    batch = four_clips()
    report, found = steps.step(
        sampler, [replace(judge, gradient="group")], batch, estimates=TWO_OF_EACH
    )
    x, scores = latents_and_scores(sampler, judge, batch)
    g = torch.zeros_like(x)
    for a, b in ((0, 1), (2, 3)):
        middle = (x[a] + x[b]) / 2
        spread = (x[a] - middle).square().sum() + (x[b] - middle).square().sum()
        for clip in (a, b):
            better = scores[clip] - (scores[a] + scores[b]) / 2
            # 2 clips of a group, a mean over 4; the judge's weight is 2; scores up, loss down
            g[clip] = -2.0 * better * (x[clip] - middle) * x[0].numel() / spread * 2 / 4
    assert_close(found, swept(sampler, batch, g))
    assert report.rewards["clip"] == pytest.approx(float(scores.mean()), rel=1e-9)
    own = scores.view(2, 2)
    deviation = float((own - own.mean(dim=1, keepdim=True)).square().mean().sqrt())
    assert report.spread["clip"] == pytest.approx(deviation, rel=1e-9)


def test_pairs_are_swept_with_the_slope_to_near_clips(
    sampler: ClipSampler, judge: FramedJudge
) -> None:
    batch = four_clips()
    report, found = steps.step(
        sampler, [replace(judge, gradient="paired")], batch, estimates=TWO_OF_EACH
    )
    x, scores = latents_and_scores(sampler, judge, batch)
    g, length = torch.zeros_like(x), torch.zeros(4, dtype=x.dtype)
    for number in range(2):
        near = replace(batch, near=(number, 0.4))
        e = sampler.noise(batch.noise_seeds)
        other = sampler.noise([derive_seed(seed, "near", number) for seed in batch.noise_seeds])
        assert torch.allclose(starting_noise(sampler, near), 0.84**0.5 * e + 0.4 * other)
        y, near_scores = latents_and_scores(sampler, judge, near)
        change = y - x
        assert float(change.norm() / x.norm()) < 1.0
        length += change.flatten(1).square().sum(dim=1)
        g += (near_scores - scores).view(-1, 1, 1, 1, 1) * change
    g *= -2.0 * x[0].numel() / length.view(-1, 1, 1, 1, 1) / 4
    assert_close(found, swept(sampler, batch, g))
    assert report.rollout_steps == 3 * batch.plan.stop


def test_exact_and_estimated_judges_share_a_sweep(sampler: ClipSampler, judge: FramedJudge) -> None:
    """The gradient of three judges is the sum of what each gives alone."""
    one = replace(judge, label="exact")
    two = replace(judge, label="of a group", gradient="group", weight=0.3)
    three = replace(judge, label="of pairs", gradient="paired", weight=-0.7)
    batch = four_clips()
    report, together = steps.step(sampler, [one, two, three], batch, estimates=TWO_OF_EACH)
    assert list(report.rewards) == ["exact", "of a group", "of pairs"]
    alone = [steps.step(sampler, [one], batch)[1]]
    alone += [steps.step(sampler, [of], batch, estimates=TWO_OF_EACH)[1] for of in (two, three)]
    added = [torch.stack(of).sum(dim=0) for of in zip(*alone, strict=True)]
    assert_close(together, added, 1e-6)  # timesteps are embedded in float32


def test_a_fresh_look_and_a_leap_are_estimated_too(
    sampler: ClipSampler, judge: FramedJudge
) -> None:
    """Reward inputs that are not the end: every method's, here the posterior mean of DRTune's."""
    batch = replace(four_clips(), plan=steps.batch(early_stop=True).plan)
    for gradient in ("group", "paired"):
        report, found = steps.step(
            sampler, [replace(judge, gradient=gradient)], batch, estimates=TWO_OF_EACH
        )
        assert report.finite
        assert sum(float(g.norm()) for g in found) > 0


def test_an_answer_in_the_background_is_the_same(sampler: ClipSampler, judge: FramedJudge) -> None:
    judges = [replace(judge, gradient="group")]
    batch, options = four_clips(), StepOptions(estimates=TWO_OF_EACH)
    _, wanted = steps.step(sampler, judges, batch, estimates=TWO_OF_EACH)
    own = parameters(sampler)
    for parameter in own:
        parameter.grad = None
    begun = begin_batch(sampler, judges, batch, SIGMAS, options=options, asking=Background())
    complete_batch(begun, judges, SIGMAS, parameters=own, options=options)
    found = [parameter.grad for parameter in own if parameter.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_a_judge_of_this_process_scores_before_its_weights_may_leave(
    sampler: ClipSampler, judge: FramedJudge
) -> None:
    """Beside one outside, which alone is asked in the background."""
    threads = []

    def brightness(frames: Tensor, prompts: Sequence[str]) -> Tensor:
        threads.append(threading.current_thread())
        return frames.mean(dim=(1, 2, 3, 4)).float()

    here = FramedJudge(brightness, "here", judge.positions, gradient="group")
    outside = FramedJudge(Levels(Asking()), "outside", judge.positions, gradient="group")
    options, asking = StepOptions(estimates=TWO_OF_EACH), Background()
    both = [here, outside]
    begun = begin_batch(sampler, both, four_clips(), SIGMAS, options=options, asking=asking)
    assert threads == [threading.main_thread()]
    (asked,) = begun.asked
    answers = asked.answer()
    assert answers is not None
    assert {name: scores.shape for name, scores in answers.items()} == {
        "here": (1, 4),
        "outside": (1, 4),
    }
    assert len(threads) == 1


@pytest.mark.slow
def test_a_judge_without_a_gradient_is_trained_on(world: Path, tmp_path: Path) -> None:
    """Sharpness, which only measures: a step moves the adapter, and the row tells the spread."""
    recipe = tiny_recipe(
        world,
        tmp_path / "run",
        "train.steps=1",
        "train.batch_size=2",
        "train.clips_per_prompt=2",
        "rewards=[{kind: sharpness, gradient: group}]",
        "evaluation.held_out_rewards=[]",
        "evaluation.prompts=2",
    )
    run(recipe)
    (row,) = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert row["grad_norm"] > 0
    assert row["spread"]["sharpness"] > 0
