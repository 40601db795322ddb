"""Random weights for a training from scratch."""

from __future__ import annotations

from typing import Any

import torch


@torch.no_grad()
def fresh_weights(transformer: Any, *, seed: int) -> None:
    """Give a transformer new random weights, in place, as its own constructor draws them.

    Args:
        transformer: `EasyAnimateTransformer3DModel`; only its configuration is used.
        seed: Seed of the weights; the global generator is left as it was.
    """
    config = {k: v for k, v in dict(transformer.config).items() if not k.startswith("_")}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        new = type(transformer)(**config)
    for own, drawn in zip(transformer.parameters(), new.parameters(), strict=True):
        own.copy_(drawn)
