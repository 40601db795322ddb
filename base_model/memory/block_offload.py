"""Transformer blocks that come to the device one at a time, forward and backward.

A block's weights are copied to the device as its forward begins and dropped as it ends. With
gradient checkpointing the backward pass runs that forward again, just before the block's own
gradients: the copy made then is what autograd saves, so it lives until they are done, and the
device holds one block's weights, not all of them. Copies are made in the order of the work, on its
stream: they do not overlap with it.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from base_model.core.family import FAMILY
from base_model.errors import GeneratorError
from base_model.memory.offload import CopyFn, Offload, copied


def stream_blocks(transformer: Any, device: torch.device, copy: CopyFn = copied) -> None:
    """Has every block of a transformer rest on the CPU while it does not run, in place.

    Turns gradient checkpointing on. Adapters that are attached later stay where they are: they are
    no part of what rests.

    Args:
        transformer: An `EasyAnimateTransformer3DModel`, frozen; what is not in a block must be on
            the device.
        device: Where blocks run.
        copy: How a tensor gets there.

    Raises:
        GeneratorError: When a block has trainable parameters.
    """
    transformer.enable_gradient_checkpointing()
    for block in getattr(transformer, FAMILY.blocks):
        block.forward = _streamed(transformer, block, Offload([block], device, copy))


def _streamed(transformer: Any, block: Any, offload: Offload) -> Callable[..., Sequence[Any]]:
    forward = block.forward

    @functools.wraps(forward)
    def with_weights(*arguments: Any, **options: Any) -> Sequence[Any]:
        if torch.is_grad_enabled() and not transformer.gradient_checkpointing:
            # Without it autograd would save the weights of every block, or find them gone.
            raise GeneratorError(
                "Streamed blocks need gradient checkpointing. Call "
                "transformer.enable_gradient_checkpointing(), or load the generator with "
                "memory=resident or memory=offload."
            )
        # The end of a checkpoint's recomputation leaves this by an exception, in the middle.
        with offload.at_work():
            return forward(*arguments, **options)

    return with_weights
