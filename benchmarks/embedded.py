"""Measure the embedded weights against their bars, on held-out combinations.

    python benchmarks/embedded.py [--checkpoint tiny] [--prompts 128] [--clips 64] [--frames 256]

Prints one JSON object: `vae_psnr` in dB (bar: 32); per language the share of generated clips
(25 steps, guidance 5) in which the oracle reads every attribute of the prompt (bar: 0.40 to 0.80,
languages within 0.10); and per judge the share of held-out frames whose true word scores highest
among the words of its attribute, of preference pairs ordered right, the aesthetic head's
correlation with its analytic target, and what the judge of noisy latents reads at each noise level.
"""

import argparse
import json
import sys
from typing import Any

from base_model.generator import load_generator
from base_model.tiny.measure import measure
from reward_tuning.pretrain.judge_accuracy import (
    appeal_correlation,
    attribute_accuracy,
    latent_accuracy,
    preference_accuracy,
)
from rewards import load_latent_reward, load_reward

TEXT_JUDGES = {"hps": "hps", "clip": "clip", "clip-held-out": "clip"}


def measure_judges(frames: int, vae: Any) -> dict[str, Any]:
    """Accuracies of the shipped judges on that many held-out frames, pairs or clips."""
    measured: dict[str, Any] = {}
    for name, kind in TEXT_JUDGES.items():
        judge: Any = load_reward(kind, f"tiny/{name}.safetensors")
        measured[name] = {
            "attributes": attribute_accuracy(judge, frames, seed=0),
            "preferences": preference_accuracy(judge, frames, seed=0),
        }
    aesthetic: Any = load_reward("aesthetic", "tiny/aesthetic.safetensors")
    measured["aesthetic"] = {"correlation": appeal_correlation(aesthetic, frames, seed=0)}
    latent = load_latent_reward("tiny/latent-clip.safetensors")
    measured["latent-clip"] = latent_accuracy(latent, vae, frames, seed=0)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the embedded generator.")
    parser.add_argument("--checkpoint", default="tiny", help="shipped name or folder")
    parser.add_argument("--prompts", type=int, default=128, help="prompts of each language")
    parser.add_argument("--clips", type=int, default=64, help="clips for the VAE")
    parser.add_argument("--frames", type=int, default=256, help="frames for each judge")
    arguments = parser.parse_args()

    def report(done: int, total: int) -> None:
        print(f"{done}/{total} clips", file=sys.stderr, flush=True)

    generator = load_generator(arguments.checkpoint)
    numbers = measure(
        generator,
        vae_clips=arguments.clips,
        prompts_per_language=arguments.prompts,
        report=report,
    )
    numbers["judges"] = measure_judges(arguments.frames, generator.vae)
    print(json.dumps(numbers, indent=2))


if __name__ == "__main__":
    main()
