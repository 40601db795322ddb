"""Scores of clips as the loss weights them, and the advantages that they become."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import pytest
import torch

from base_model.sampling.guidance import Guidance
from reward_tuning.judges.clip_terms import ClipTerms, steady_motion
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.tuning.draws import Batch
from reward_tuning.tuning.sampled_clips import (
    centred,
    normalised,
    sampled_clips,
    why_unmatched,
)
from reward_tuning.tuning.step import StepOptions
from tests.reward_tuning.tuning import test_step as steps

sampler, judge = steps.sampler, steps.judge
SIGMAS, PROMPTS = steps.SIGMAS, steps.PROMPTS
BATCH = Batch([PROMPTS[0]] * 2 + [PROMPTS[1]] * 2, [7, 8, 9, 10], steps.batch().plan, 2.0)


def test_clips_are_those_of_the_sampler_and_scored_as_the_loss_weights_them(
    sampler: ClipSampler, judge: FramedJudge
) -> None:
    """Each clip sampled on its own, with two judges, one of them capped, and the motion term."""
    guided = replace(sampler, guidance=Guidance(2.0))
    frames, scores = [], []
    for prompt, seed in zip(BATCH.prompts, BATCH.noise_seeds, strict=True):
        shown = sampler.generator.decode(guided.latents([prompt.text], [seed], SIGMAS))
        frames.append(shown)
        scores.append(float(judge.reward(shown[:, [0, 3]], [prompt.reward_text])))
    cap = statistics.median(scores)
    capped = replace(judge, label="capped", weight=0.5, target=cap, std=0.1)
    every = replace(judge, positions=tuple(range(5)), label="all", mean=0.2, std=0.5, weight=-1.0)
    terms = ClipTerms(motion=0.3, motion_target=10.0)
    got = sampled_clips(
        sampler, [judge, capped, every], BATCH, SIGMAS, options=StepOptions(terms=terms)
    )
    expected = []
    for shown, score, prompt in zip(frames, scores, BATCH.prompts, strict=True):
        whole = float(judge.reward(shown, [prompt.reward_text]))
        motion = float(steady_motion(shown))
        total = 2.0 * score - 0.5 * max(cap - score, 0.0) / 0.1
        expected.append(total - (whole - 0.2) / 0.5 - 0.3 * (10.0 - motion))
    assert got.totals.tolist() == pytest.approx(expected, rel=1e-5)
    assert got.report.loss == pytest.approx(-statistics.mean(expected), rel=1e-5)
    assert got.report.rewards["clip"] == pytest.approx(statistics.mean(scores), rel=1e-5)
    assert set(got.report.rewards) == {"clip", "capped", "all", "motion_term"}
    assert (got.report.rollout_steps, got.report.full_steps) == (4, 4)
    assert not got.latents.requires_grad


def test_clips_that_are_not_finite_have_no_score(sampler: ClipSampler, judge: FramedJudge) -> None:
    states = {text: math.nan * of for text, of in sampler.states.items()}
    got = sampled_clips(replace(sampler, states=states), [judge], BATCH, SIGMAS)
    assert got.totals.isnan().all()
    assert not got.report.finite


def test_advantages_are_centred_by_prompt() -> None:
    totals = torch.tensor([1.0, 3.0, 8.0, 10.0, 10.0, 13.0], dtype=torch.float64)
    assert centred(totals, 3).tolist() == [-3.0, -1.0, 4.0, -1.0, -1.0, 2.0]
    assert centred(totals, 2).tolist() == [-1.0, 1.0, -1.0, 1.0, -1.5, 1.5]


def test_advantages_are_divided_by_a_standard_deviation() -> None:
    totals = [1.0, 3.0, 8.0, 10.0, 10.0, 13.0]
    above = centred(torch.tensor(totals, dtype=torch.float64), 3)
    own = [statistics.pstdev(totals[:3])] * 3 + [statistics.pstdev(totals[3:])] * 3
    expected = [a / s for a, s in zip(above.tolist(), own, strict=True)]
    assert normalised(above, 3, "group", 1.0).tolist() == pytest.approx(expected)
    assert normalised(above, 3, "batch", 2.0).tolist() == [a / 2 for a in above.tolist()]
    assert normalised(above, 3, "none", 2.0).tolist() == above.tolist()


def test_equal_scores_have_no_advantage() -> None:
    """Exactly 0 in the group that is equal but for rounding, and as ever in the other."""
    totals = torch.tensor([0.7, 0.7 + 1e-9, 0.7, 1.0, 2.0, 3.0], dtype=torch.float64)
    above = centred(totals, 3)
    for by in ("group", "batch", "none"):
        got = normalised(above, 3, by, 1.0)  # type: ignore[arg-type]
        assert got[:3].tolist() == [0.0, 0.0, 0.0]
        assert got[5] > 0
    nothing = centred(totals[:3], 3)
    assert normalised(nothing, 3, "batch", 0.0).tolist() == [0.0, 0.0, 0.0]


def test_a_zero_gradient_is_explained(judge: FramedJudge) -> None:
    means = {"loss": -0.5, "reward/clip": 0.25}
    assert why_unmatched([judge], means) == (
        "All clips of each prompt have the same score of clip, so none is better than another: add "
        "a judge with finer scores, or raise train.clips_per_prompt"
    )
    reached = why_unmatched([replace(judge, target=0.2)], means | {"loss": 0.0})
    assert "The hinge is reached" in reached
