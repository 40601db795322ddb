"""Several LoRAs as one, and LoRAs that do nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import pad

from reward_tuning.lora.adapter import LoraWeights


def combined(adapters: Sequence[tuple[LoraWeights, float]]) -> LoraWeights:
    """One adapter that does what several do side by side.

    The factors of a module stand beside each other, [s1 B1, s2 B2] [A1; A2], so that the sum of the
    products is exact to rounding, and the rank is the sum of the ranks.

    Args:
        adapters: Each with the scale that it counts at, besides its own alpha / rank.
    """
    rank = sum(weights.rank for weights, _ in adapters)
    paths = dict.fromkeys(path for weights, _ in adapters for path in weights.state)
    state = {}
    for path in paths:
        on = [(weights, scale) for weights, scale in adapters if path in weights.state]
        down = torch.cat([weights.state[path][0] for weights, _ in on])
        up = torch.cat(
            [weights.state[path][1] * (scale * weights.strength) for weights, scale in on], dim=1
        )
        more = rank - down.shape[0]
        state[path] = (pad(down, (0, 0, 0, more)), pad(up, (0, more)))
    return LoraWeights(rank, float(rank), state)


def does_nothing(weights: LoraWeights) -> bool:
    """Whether all up (or all down) factors are 0, as in an adapter that was never trained."""
    return not any(up.any() and down.any() for down, up in weights.state.values())


def nothing_told(name: object) -> str:
    """What is said, once, of an adapter that does nothing."""
    return (
        f"warning: the LoRA {name} changes nothing: all its up factors are 0, as before the first "
        "training step; check that the right file was saved"
    )
