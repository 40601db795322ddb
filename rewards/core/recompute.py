"""Gradient checkpointing that works on frozen towers in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute_blocks(blocks: Iterable[nn.Module]) -> None:
    """Make blocks keep only their inputs and run again in the backward pass.

    transformers does so in training mode only, where dropout would make a judge noisy, so this
    wraps the `forward` of the blocks. Costs one more forward pass of each block; values and
    gradients stay the same, and without gradient nothing changes.

    Args:
        blocks: Blocks of a transformer, changed in place.
    """
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
