"""One batch of an evaluation, with so few sampler steps that it can be followed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from base_model.sampling.sigmas import sigma_table
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.judges.judge import FramedJudge, Judge
from reward_tuning.sampling.sampler import ClipSampler

FOLLOWED_STEPS = 2
"""Sampler steps that are followed: more of them hold no more."""


@torch.no_grad()
def evaluate_batch(
    sampler: ClipSampler, judges: Sequence[Judge], prompt: Prompt, clips: int
) -> None:
    """Sample, decode and judge clips of one prompt, as an evaluation does.

    Args:
        sampler: On any device.
        judges: Those that judge frames take part.
        prompt: Of every clip.
        clips: Clips in the batch.
    """
    latents = sampler.latents([prompt] * clips, range(clips), sigma_table(FOLLOWED_STEPS))
    frames = sampler.generator.decode(latents)
    for judge in judges:
        if isinstance(judge, FramedJudge):
            judge.scores(frames, [prompt.reward_text] * clips)
