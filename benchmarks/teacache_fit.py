"""Fit TeaCache's polynomial for a checkpoint: from the change of its input to that of its output.

    python -m benchmarks.teacache_fit [--checkpoint tiny] [--prompts 32] [--steps 25]
                                      [--guidance-scale 6]

Samples clips of held-out scenes of the embedded world without a cache (arXiv 2411.19108, section
3.3). Each step but the first of each clip gives a pair: the relative L1 change of the first block's
modulated input since the step before, and that of the transformer's output. Prints JSON: the five
coefficients of the least-squares polynomial, highest power first, as `rollout.cache.coefficients`
takes them, the number of pairs and the correlation of the changes before and after the fit.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from base_model.generator import Generator, load_generator
from base_model.sampling.guidance import Guidance
from base_model.tiny.scenes import FRAMES, SIDE
from benchmarks.machine import machine
from benchmarks.sampling import held_out_prompts
from reward_tuning.sampling.draw import sample_clip
from reward_tuning.sampling.teacache import rescaled

DEGREE = 4


def changes(
    generator: Generator, prompts: Sequence[str], *, steps: int, guidance_scale: float
) -> tuple[list[float], list[float]]:
    """Relative L1 changes of input and output, one of each for each step but a clip's first."""
    inputs: list[float] = []
    outputs: list[float] = []
    for seed, prompt in enumerate(prompts):
        signals = recorded(generator, prompt, seed, steps, guidance_scale)
        for found, tensors in zip((inputs, outputs), signals, strict=True):
            found += [
                float((now - before).abs().mean() / before.abs().mean())
                for before, now in pairwise(tensors)
            ]
    return inputs, outputs


def recorded(
    generator: Generator, prompt: str, seed: int, steps: int, guidance_scale: float
) -> tuple[list[Tensor], list[Tensor]]:
    """The first block's modulated input and the transformer's output at each step of a clip."""
    transformer: Any = generator.transformer
    modulated: list[Tensor] = []
    outputs: list[Tensor] = []
    hooks = [
        transformer.transformer_blocks[0].norm1.register_forward_hook(
            lambda module, args, out: modulated.append(out[0])
        ),
        transformer.register_forward_hook(lambda module, args, out: outputs.append(out[0])),
    ]
    try:
        sample_clip(
            generator,
            prompt,
            "",
            seed=seed,
            size=(FRAMES, SIDE, SIDE),
            steps=steps,
            guidance=Guidance(guidance_scale),
        )
    finally:
        for hook in hooks:
            hook.remove()
    return modulated, outputs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", default="tiny")
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance-scale", type=float, default=6.0)
    arguments = parser.parse_args()
    inputs, outputs = changes(
        load_generator(arguments.checkpoint),
        held_out_prompts(arguments.prompts),
        steps=arguments.steps,
        guidance_scale=arguments.guidance_scale,
    )
    found = [float(f"{c:.6g}") for c in np.polyfit(inputs, outputs, DEGREE)]
    fitted = [rescaled(found, x) for x in inputs]
    about = {
        "coefficients": found,
        "pairs": len(inputs),
        "correlation": float(np.corrcoef(inputs, outputs)[0, 1]),
        "correlation_after": float(np.corrcoef(fitted, outputs)[0, 1]),
        "input_changes": [min(inputs), max(inputs)],
        "output_changes": [min(outputs), max(outputs)],
        "machine": machine(),
    }
    print(json.dumps(vars(arguments) | about, indent=1))


if __name__ == "__main__":
    main()
