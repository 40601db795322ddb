"""Several LoRAs as one, and LoRAs without an effect."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from reward_tuning.lora.adapter import LoraWeights


def combine(adapters: Sequence[tuple[LoraWeights, float]]) -> LoraWeights:
    """Return one adapter whose update is the scaled sum of several.

    The factors of a module are concatenated, [s1 B1, s2 B2] [A1; A2], so the sum of the products is
    exact up to rounding, and the rank is the sum of the ranks.

    Args:
        adapters: Adapters, each with a scale on top of its own alpha / rank.
    """
    rank = sum(weights.rank for weights, _ in adapters)
    paths = dict.fromkeys(path for weights, _ in adapters for path in weights.state)
    state = {}
    for path in paths:
        present = [(weights, scale) for weights, scale in adapters if path in weights.state]
        down = torch.cat([weights.state[path][0] for weights, _ in present])
        up = torch.cat(
            [weights.state[path][1] * (scale * weights.strength) for weights, scale in present],
            dim=1,
        )
        missing = rank - down.shape[0]  # rows of the adapters without this module
        state[path] = (pad(down, (0, 0, 0, missing)), pad(up, (0, missing)))
    return LoraWeights(rank, float(rank), state)


def has_no_effect(weights: LoraWeights) -> bool:
    """Return whether every module has only zeros in up or in down, as before training."""
    return not any(up.any() and down.any() for down, up in weights.state.values())


def no_effect_warning(name: object) -> str:
    """Return the warning for a LoRA without an effect."""
    return (
        f"warning: the LoRA {name} changes nothing: all its up factors are 0, as before the first "
        "training step; check that the right file was saved"
    )
