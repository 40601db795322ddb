"""Clips rolled out and scored without a gradient, and the advantage of each among its prompt's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from reward_tuning.judges.clip_terms import ClipTerms, shortfall
from reward_tuning.judges.judge import FramedJudge, Judge
from reward_tuning.judges.judging import Verdicts, on_frames
from reward_tuning.sampling.cheap_steps import whole_rollout
from reward_tuning.sampling.sampler import ClipSampler
from reward_tuning.tuning.draws import Batch
from reward_tuning.tuning.rows import ScoredJudge, why_zero
from reward_tuning.tuning.step import BatchReport, PhaseFn, StepOptions, latent_motion

ALIKE = 1e-6
"""Scores of a prompt that differ by less than this share of the largest differ by rounding: divided
by their standard deviation they would count as much as any others."""


@dataclass(frozen=True)
class SampledClips:
    """The clips of one batch at the end of their rollout.

    Attributes:
        batch: What they were sampled from.
        latents: `(b, 16, t, h/8, w/8)` float32, on the generator's device.
        totals: `(b,)` float64 on the CPU: minus each clip's loss, over all judges; NaN where
            latents or frames are not finite.
        report: Measurements; its loss is minus the mean of `totals`.
    """

    batch: Batch
    latents: Tensor
    totals: Tensor
    report: BatchReport


@torch.no_grad()
def sampled_clips(
    sampler: ClipSampler,
    judges: Sequence[Judge],
    batch: Batch,
    sigmas: Tensor,
    *,
    options: StepOptions = StepOptions(),  # noqa: B008  # frozen
    phase: PhaseFn = lambda name: nullcontext(),
) -> SampledClips:
    """Roll out a batch to the end, decode it and score it, all without gradient.

    Args:
        sampler: The generator with its adapter attached.
        judges: Judges of frames, differentiable or not.
        batch: Prompts and noise.
        sigmas: `(N + 1,)`, the sampler's table.
        options: Choices of the recipe.
        phase: Entered around `rollout` and `reward`.
    """
    sampler, steps = sampler.guided_by(batch.guidance_scale), len(sigmas) - 1
    with phase("rollout"):
        walked = whole_rollout(sampler, batch.prompts, batch.noise_seeds, sigmas, options.cheap)
    x = walked.states[-1]
    report = BatchReport(
        math.nan, {}, latent_motion(x), rollout_steps=steps, full_steps=walked.full_steps
    )
    bad = SampledClips(batch, x, torch.full((len(x),), math.nan, dtype=torch.float64), report)
    if not bool(x.isfinite().all()):  # judges refuse such clips; the trainer skips the step
        return bad
    framed = [judge for judge in judges if isinstance(judge, FramedJudge)]
    with phase("reward"):
        verdicts = on_frames(
            sampler,
            framed,
            x,
            [prompt.reward_text for prompt in batch.prompts],
            seeds=batch.noise_seeds,
            common_seed=batch.common_seed,
            frames=batch.frames,
            terms=options.terms,
            by=options.decoder,
        )
    if verdicts is None:
        return bad
    totals = clip_totals(framed, options.terms, verdicts)
    rewards = {label: float(scores.mean()) for label, (_, scores) in verdicts.items()}
    report = replace(report, loss=-float(totals.mean()), rewards=rewards)
    return SampledClips(batch, x, totals, report)


def clip_totals(judges: Sequence[FramedJudge], terms: ClipTerms, verdicts: Verdicts) -> Tensor:
    """Return minus the loss of each clip, `(b,)` float64 on the CPU: the judges', and of motion.

    Weights, `mean`, `std` and the hinge of a target count as in the loss of the whole batch.
    """
    losses = [judge.losses_of(_scores(verdicts[judge.label])) for judge in judges]
    if terms.motion:
        moved = _scores(verdicts["motion_term"])
        each = [terms.motion * shortfall(one, terms.motion_target) for one in moved.split(1)]
        losses.append(torch.stack(each))
    return -torch.stack(losses).sum(dim=0)


def _scores(verdict: tuple[Tensor, Tensor]) -> Tensor:
    return verdict[1].detach().double().cpu()


def centred(totals: Tensor, clips_per_prompt: int) -> Tensor:
    """Return each clip's distance above its prompt's mean, `(b,)`; exactly 0 for equal clips.

    Args:
        totals: `(b,)`, neighbours of a prompt side by side.
        clips_per_prompt: Divides b.
    """
    groups = totals.view(-1, clips_per_prompt)
    above = groups - groups.mean(dim=1, keepdim=True)
    largest = groups.abs().amax(dim=1, keepdim=True)
    alike = above.abs().amax(dim=1, keepdim=True) <= ALIKE * largest
    return torch.where(alike, torch.zeros_like(above), above).flatten()


def normalised(
    above: Tensor,
    clips_per_prompt: int,
    by: Literal["group", "batch", "none"],
    deviation: float,
) -> Tensor:
    """Return advantages: `centred` scores over a standard deviation; 0 stays 0.

    Args:
        above: `(b,)`, from `centred`.
        clips_per_prompt: Divides b.
        by: As the recipe's `method.normalise`.
        deviation: Root mean square of `above` over all clips of the step, for `batch`.
    """
    if by == "none":
        return above
    if by == "batch":
        return above / deviation if deviation > 0 else above
    groups = above.view(-1, clips_per_prompt)
    own = groups.square().mean(dim=1, keepdim=True).sqrt()
    return torch.where(own > 0, groups / own.where(own > 0, torch.ones_like(own)), groups).flatten()


def why_unmatched(judges: Sequence[ScoredJudge], means: Mapping[str, float]) -> str:
    """Name the likely cause of a gradient of zero where clips are matched, and the next step.

    Args:
        judges: The judges that are trained on.
        means: `loss` and `reward/LABEL` of the step.
    """
    if means["loss"] == 0 and any(judge.target is not None for judge in judges):
        return why_zero(judges, means, {})
    names = ", ".join(judge.label for judge in judges)
    return (
        f"All clips of each prompt have the same score of {names}, so none is better than another: "
        "add a judge with finer scores, or raise train.clips_per_prompt"
    )
