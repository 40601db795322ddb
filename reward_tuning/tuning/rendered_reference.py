"""Scores of the embedded world's own renders: those of a perfect generator of it."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from base_model.tiny.captions import parse_caption
from base_model.tiny.render import render
from reward_tuning.inputs.prompts import Prompt
from reward_tuning.judges.judge import Judge
from reward_tuning.tuning.evaluation import clip_scores


def rendered_means(
    prompts: Sequence[Prompt], judges: Sequence[Judge], batch_size: int, device: torch.device
) -> dict[str, float]:
    """Render one clip of each prompt and score it as generated clips are.

    Args:
        prompts: Captions of the embedded world.
        judges: Judges of the evaluation; those of latents are skipped.
        batch_size: Clips judged at a time.
        device: Device of the judges.

    Returns:
        Metric to its mean.

    Raises:
        ValueError: A prompt is not a caption (`oracle_applies` is false).
    """
    found: dict[str, list[float]] = {}
    for start in range(0, len(prompts), batch_size):
        part = prompts[start : start + batch_size]
        clips = [
            render([parse_caption(prompt.text)[0]], random.Random(f"reference/{start + i}"))
            for i, prompt in enumerate(part)
        ]
        frames = torch.cat(clips).to(device)
        for name, scores in clip_scores(frames, None, part, judges, oracle=True).items():
            found.setdefault(name, []).extend(scores.tolist())
    return {name: sum(values) / len(values) for name, values in found.items()}
