"""Measure the embedded generator on held-out combinations, before its weights are shipped."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import torch

from base_model.generator import Generator
from base_model.sampling.guidance import Guidance
from base_model.sampling.sample import euler_sample
from base_model.sampling.sigmas import sigma_table
from base_model.tiny.captions import LANGUAGES, draw_caption
from base_model.tiny.oracle import judge
from base_model.tiny.render import render
from base_model.tiny.scenes import FRAMES, SIDE, scenes

GUIDANCE_SCALE = 5.0
BATCH = 16


@torch.no_grad()
def vae_psnr(generator: Generator, clips: int, *, seed: int = 0) -> float:
    """Return the mean PSNR of reconstructed held-out clips, in dB.

    Args:
        generator: Generator whose VAE encodes (mode) and decodes.
        clips: Number of rendered clips of held-out combinations.
        seed: Seed of the clips.
    """
    rng = random.Random(f"vae-psnr/{seed}")
    total = 0.0
    for scene in rng.choices(scenes("held_out"), k=clips):
        frames = render([scene], rng)
        decoded = generator.decode(generator.encode(frames))
        total += -10.0 * math.log10((decoded - frames).square().mean().item())
    return total / clips


@torch.no_grad()
def all_right(
    generator: Generator,
    prompts_per_language: int,
    *,
    steps: int = 25,
    guidance_scale: float = GUIDANCE_SCALE,
    seed: int = 0,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, dict[str, float]]:
    """Return the oracle's accuracy on generated clips by language.

    Every language has the same held-out scenes and noise seeds, with one caption for each scene.

    Args:
        generator: Generator with its prompt encoder.
        prompts_per_language: Number of clips in each language.
        steps: Sampling steps.
        guidance_scale: Classifier-free guidance with the empty negative prompt.
        seed: Seed of scenes, captions and noise.
        report: Callback, called with (clips done, all clips).

    Returns:
        Language -> `all_right` and each attribute's share in [0, 1].
    """
    rng = random.Random(f"all-right/{seed}")
    chosen = rng.sample(scenes("held_out"), prompts_per_language)
    sigmas = sigma_table(steps)
    result: dict[str, dict[str, float]] = {}
    done, total = 0, len(LANGUAGES) * prompts_per_language
    for language in LANGUAGES:
        captions = [draw_caption(scene, rng, language) for scene in chosen]
        parts: list[dict[str, float]] = []
        for start in range(0, len(captions), BATCH):
            batch = captions[start : start + BATCH]
            text = generator.encode_prompts(batch, [""] * len(batch))
            shape = generator.latent_shape(len(batch), FRAMES, SIDE, SIDE)
            noise = generator.initial_noise(
                shape, [1000 * seed + start + i for i in range(len(batch))]
            )
            latents = euler_sample(
                generator, generator.condition(text), noise, sigmas, Guidance(guidance_scale)
            )
            score = judge(generator.decode(latents), batch).means()
            parts += [score] * len(batch)
            done += len(batch)
            report(done, total)
        result[language] = {k: sum(p[k] for p in parts) / len(parts) for k in parts[0]}
    return result


def measure(
    generator: Generator,
    *,
    vae_clips: int = 64,
    prompts_per_language: int = 128,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Return both measures, ready for JSON: `vae_psnr` (dB) and `base` (by language)."""
    return {
        "vae_psnr": vae_psnr(generator, vae_clips),
        "base": all_right(generator, prompts_per_language, report=report),
    }
