"""Accuracy of an embedded judge on held-out combinations.

All measures use the judge's public interface, on the file as shipped (fp16 weights).
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from functools import partial

import torch
from diffusers import AutoencoderKLMagvit

from base_model.tiny.captions import LANGUAGES, draw_caption
from base_model.tiny.key_frames import encode_key_frames
from base_model.tiny.render import render
from base_model.tiny.scenes import ATTRIBUTES, Scene, draw_scenes
from base_model.tiny.training_clips import ENCODED_AT_ONCE
from reward_tuning.pretrain.degradations import jitter
from reward_tuning.pretrain.judge_aesthetic import appeal, draw_mixed_quality
from reward_tuning.pretrain.judge_data import VISIBLE, draw_frames, draw_pairs, named_rng
from rewards.core.base import FrameReward
from rewards.kinds.latent import LatentReward

SIGMAS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.95)
"""Noise levels for the measures of a judge of latents."""


def attribute_accuracy(judge: FrameReward, count: int, seed: int) -> dict[str, float]:
    """Return the share of held-out frames whose true word scores highest of its attribute.

    Args:
        judge: Judge of frames and texts.
        count: Number of frames.
        seed: Seed of the frames and phrasings.

    Returns:
        Share in [0, 1] by attribute and language, `"colour/en"` and so on.
    """
    rng, generator = named_rng("attribute accuracy", seed)
    scenes, frames = draw_frames(count, rng, "held_out")
    frames = jitter(frames, generator)
    return _words_read(lambda prompts: _scores(judge, frames, prompts), scenes, VISIBLE, rng)


@torch.no_grad()
def latent_accuracy(
    judge: LatentReward,
    vae: AutoencoderKLMagvit,
    count: int,
    seed: int,
    sigmas: Sequence[float] = SIGMAS,
) -> dict[float, dict[str, float]]:
    """Measure `attribute_accuracy` on noisy latents of held-out clips, including motion.

    Args:
        judge: Judge of noisy latents.
        vae: VAE of the embedded generator.
        count: Number of clips, the same at every noise level.
        seed: Seed of the clips, phrasings and noise.
        sigmas: Noise levels.

    Returns:
        Share in [0, 1] by noise level and `"motion/en"` and so on.
    """
    rng, generator = named_rng("latent accuracy", seed)
    scenes = draw_scenes(count, rng, "held_out")
    clips = render(scenes, rng).split(ENCODED_AT_ONCE)
    latents = torch.cat([encode_key_frames(vae, part) for part in clips])
    latents = latents * vae.config.scaling_factor
    accuracy = {}
    for sigma in sigmas:
        noise = torch.randn(latents.shape, generator=generator)
        noisy = (1 - sigma) * latents + sigma * noise
        accuracy[sigma] = _words_read(
            partial(judge, noisy, sigma), scenes, tuple(ATTRIBUTES), copy(rng)
        )
    return accuracy


def _words_read(
    score: Callable[[list[str]], torch.Tensor],
    scenes: Sequence[Scene],
    attributes: Sequence[str],
    rng: random.Random,
) -> dict[str, float]:
    """Return the share of scenes whose true word scores highest, by `"colour/en"` and so on."""
    accuracy = {}
    for language in LANGUAGES:
        for attribute in attributes:
            words = ATTRIBUTES[attribute]
            scores = []
            # The same random state for each word gives the same phrasing with another word.
            state = rng.getstate()
            for word in words:
                rng.setstate(state)
                changed = [replace(scene, **{attribute: word}) for scene in scenes]
                scores.append(score([draw_caption(scene, rng, language) for scene in changed]))
            best = torch.stack(scores).argmax(dim=0)
            truth = torch.tensor([words.index(getattr(scene, attribute)) for scene in scenes])
            accuracy[f"{attribute}/{language}"] = float((best == truth).float().mean())
    return accuracy


def preference_accuracy(judge: FrameReward, count: int, seed: int) -> dict[str, float]:
    """Return the share of held-out pairs in which the better frame scores higher.

    Args:
        judge: Any judge of frames.
        count: Number of pairs.
        seed: Seed of the pairs.

    Returns:
        Share by difference (an attribute or a degradation), and `"all"`.
    """
    pairs = draw_pairs(count, *named_rng("preference accuracy", seed), "held_out")
    better = _scores(judge, pairs.better, pairs.prompts)
    right = better > _scores(judge, pairs.worse, pairs.prompts)
    groups: dict[str, list[float]] = defaultdict(list)
    for reason, value in zip(pairs.reasons, right.tolist(), strict=True):
        groups[reason].append(float(value))
        groups["all"].append(float(value))
    return {reason: sum(values) / len(values) for reason, values in sorted(groups.items())}


def appeal_correlation(judge: FrameReward, count: int, seed: int) -> float:
    """Return the correlation of a judge with the analytic target on held-out frames."""
    frames = draw_mixed_quality(count, *named_rng("appeal correlation", seed), "held_out")
    both = torch.stack([_scores(judge, frames, ["-"] * count), appeal(frames)])
    return float(torch.corrcoef(both)[0, 1])


def _scores(judge: FrameReward, frames: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    with torch.no_grad():
        return judge(frames[:, None], prompts)
