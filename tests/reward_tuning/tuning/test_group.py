"""Groups: which clips are kept, and that the gradient is that of these clips alone."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from base_model.sampling.guidance import Guidance
from base_model.sampling.sigmas import sigma_table
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.sampling.sampler import ClipSampler, first_state
from reward_tuning.tuning.draws import Batch, draw_batch
from reward_tuning.tuning.group import (
    Group,
    Keep,
    candidate_seeds,
    chosen_batch,
    clip_scores,
    group_columns,
    group_of,
    kept_places,
)
from reward_tuning.tuning.step import StepOptions
from reward_tuning.tuning.trainer import optimiser_step
from tests.reward_tuning.tiny_run import tiny_recipe
from tests.reward_tuning.tuning import test_step as steps
from tests.reward_tuning.tuning import test_trainer as runs

sampler, judge = steps.sampler, steps.judge
world, text_cache = runs.world, runs.text_cache
SIGMAS, PROMPTS = steps.SIGMAS, steps.PROMPTS
FOUR = [PROMPTS[0], PROMPTS[0], PROMPTS[1], PROMPTS[1]]


@given(
    scores=st.lists(st.floats(-5, 5), min_size=3, max_size=7),
    count=st.integers(2, 3),
)
def test_extremes_are_the_subset_of_largest_variance(scores: list[float], count: int) -> None:
    largest = max(statistics.pvariance(of) for of in itertools.combinations(scores, count))
    kept = kept_places(scores, count, "extremes")
    assert len(set(kept)) == count
    found = statistics.pvariance([scores[place] for place in kept])
    assert found == pytest.approx(largest, rel=1e-9, abs=1e-12)


def test_two_of_a_group_are_the_best_and_the_worst() -> None:
    scores = [0.1, 0.9, -0.3, 0.4, 0.2]
    assert kept_places(scores, 2, "extremes") == [1, 2]
    assert kept_places(scores, 3, "extremes") == [1, 0, 2]  # 0.1 is farther from the mean than 0.4
    assert kept_places(scores, 2, "best") == [1, 3]
    assert kept_places(scores, 2, "worst") == [0, 2]


def end_of(sampler: ClipSampler, prompt: int, seed: int, sigmas: Tensor) -> Tensor:
    """A clip on its own, by the sampler of the evaluation."""
    latents = sampler.latents([PROMPTS[prompt]], [seed], sigmas)
    assert torch.equal(first_state(sampler.noise([seed]), None, sigmas), sampler.noise([seed]))
    return latents


@pytest.mark.parametrize(("keep", "wanted"), [("extremes", (0, -1)), ("worst", (-2, -1))])
def test_clips_are_kept_by_what_the_judges_say_of_them(
    sampler: ClipSampler, judge: FramedJudge, keep: Keep, wanted: tuple[int, int]
) -> None:
    """By two judges, each clip sampled and scored on its own; in fewer steps than the rollout."""
    other = replace(judge, label="grey", weight=0.5, mean=0.1, std=0.3, grayscale=True)
    table = sigma_table(3).double()
    group = Group(clips=4, kept=2, keep=keep, sigmas=table)
    plan = steps.batch(early_stop=False).plan
    batch = Batch(FOUR, [7, 8, 9, 10], plan, guidance_scale=2.0)
    got, report = chosen_batch(sampler, [judge, other], batch, group)
    expected: list[int] = []
    every: list[float] = []
    kept: list[float] = []
    for prompt, own in enumerate(([7, 8], [9, 10])):
        seeds = candidate_seeds(own, 4)
        assert seeds[:2] == own
        assert len(set(seeds)) == 4
        scores = {}
        for seed in seeds:
            x = end_of(replace(sampler, guidance=Guidance(2.0)), prompt, seed, table)
            frames = sampler.generator.decode(x)[:, [0, 3]]
            text = [PROMPTS[prompt].reward_text]
            plain = float(judge.reward(frames, text))
            grey = (frames * torch.tensor([0.299, 0.587, 0.114]).view(1, 1, 3, 1, 1)).sum(
                2, keepdim=True
            )
            in_grey = float(judge.reward(grey.expand_as(frames), text))
            scores[seed] = 2.0 * plain + 0.5 * (in_grey - 0.1) / 0.3
        order = sorted(seeds, key=lambda seed: -scores[seed])
        expected += [order[place] for place in wanted]
        every += scores.values()
        kept += [scores[order[place]] for place in wanted]
    assert got == replace(batch, noise_seeds=expected, common=7)
    assert expected != list(batch.noise_seeds)
    assert report.clips == 8
    assert report.score == pytest.approx(statistics.mean(every), rel=1e-6)
    within = [statistics.pstdev(every[:4]), statistics.pstdev(every[4:])]
    assert report.deviation == pytest.approx(statistics.mean(within), rel=1e-4)
    assert report.kept == pytest.approx(statistics.mean(kept), rel=1e-6)


def test_the_gradient_is_that_of_the_kept_clips_alone(
    sampler: ClipSampler, judge: FramedJudge
) -> None:
    plan = steps.batch(early_stop=False).plan
    group = Group(clips=3, kept=2, keep="extremes", sigmas=SIGMAS)
    batch, _ = chosen_batch(sampler, [judge], Batch(FOUR, [7, 8, 9, 10], plan), group)
    _, together = steps.step(sampler, [judge], batch)
    alone = [
        steps.step(sampler, [judge], Batch([prompt], [seed], plan))[1]
        for prompt, seed in zip(FOUR, batch.noise_seeds, strict=True)
    ]
    mean = [sum(of) / 4 for of in zip(*alone, strict=True)]
    assert steps.relative(together, mean) <= 1e-6
    _, as_drawn = steps.step(sampler, [judge], Batch(FOUR, [7, 8, 9, 10], plan))
    assert steps.relative(together, as_drawn) > 1e-2


def test_a_group_has_no_gradient_and_takes_a_batch_at_a_time(
    sampler: ClipSampler, judge: FramedJudge
) -> None:
    calls: list[tuple[int, bool]] = []
    hook = sampler.generator.transformer.register_forward_hook(
        lambda _, inputs, __: calls.append((len(inputs[0]), torch.is_grad_enabled()))
    )
    group = Group(clips=3, kept=1, keep="best", sigmas=SIGMAS[-3:])
    with hook:
        batch = Batch(PROMPTS, [7, 8], steps.batch(early_stop=False).plan)
        chosen_batch(sampler, [judge], batch, group)
    assert calls == [(4, False)] * 6  # 3 times two clips with both branches, two steps each


def test_scores_that_are_not_finite_keep_the_first_clips(
    sampler: ClipSampler, judge: FramedJudge
) -> None:
    scores = clip_scores(
        sampler, [judge], torch.full((2, 16, 2, 2, 2), torch.nan), ["a", "b"], None
    )
    assert scores.isnan().tolist() == [True, True]
    for keep in ("extremes", "best"):
        assert sorted(kept_places([math.nan] * 4, 2, keep)) == [0, 1]


def test_a_run_with_a_group(world: Path, tmp_path: Path) -> None:
    keys = ("train.clips_per_prompt=2", "train.group.clips=5", "train.group.steps=2")
    recipe, parts, state = runs.prepared(world, tmp_path, *keys, "train.gradient_accumulation=2")
    group = group_of(recipe, StepOptions())
    assert group is not None
    assert len(group.sigmas) == 3
    drawn = draw_batch(recipe, parts.stream, parts.sigmas, state, Accelerator(), 1)
    chosen, _ = chosen_batch(parts.sampler, parts.judges, drawn, group)
    seen: list[list[int]] = []
    noise = type(parts.sampler).noise

    def remembered(sampler: ClipSampler, seeds: list[int]) -> Tensor:
        seen.append(list(seeds))
        return noise(sampler, seeds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(parts.sampler), "noise", remembered)
        row = optimiser_step(recipe, parts, state, Accelerator())
    assert seen[-1] == chosen.noise_seeds
    assert set(row["seconds"]) > {"candidates", "choice", "rollout", "reward", "sweep"}
    assert row["group"]["clips"] == 10
    assert row["group"]["deviation"] > 0
    assert state.position == 4
    plain = tiny_recipe(world, tmp_path)
    assert group_of(plain, StepOptions()) is None
    assert group_columns([]) == {}


def test_what_ranks_draw_alike_depends_on_no_rank_s_scores(
    sampler: ClipSampler, judge: FramedJudge
) -> None:
    """Whichever clips are kept, the common seed is that of the batch as it was drawn."""
    plan = steps.batch(early_stop=False).plan
    found = []
    for keep in ("best", "worst"):
        group = Group(clips=3, kept=1, keep=keep, sigmas=SIGMAS[-3:])
        for common in (None, 99):  # one process, several
            drawn = Batch(PROMPTS, [7, 8], plan, common=common)
            found.append(chosen_batch(sampler, [judge], drawn, group)[0])
    assert len({tuple(batch.noise_seeds) for batch in found}) == 2
    assert [batch.common_seed for batch in found] == [7, 99, 7, 99]
