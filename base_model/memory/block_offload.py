"""Transformer blocks that come to the device one at a time, forward and backward.

A block's weights are copied to the device when its forward pass begins and dropped when it ends.
With gradient checkpointing the backward pass repeats that forward pass just before the block's own
gradients: autograd saves the copy made then, so it lives until they are done, and the device holds
one block's weights, not all of them. The copies run on the stream of the computation, in order:
they do not overlap with it.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from base_model.core.family import FAMILY
from base_model.errors import GeneratorError
from base_model.memory.offload import CopyFn, Offload, copied


def stream_blocks(transformer: Any, device: torch.device, copy: CopyFn = copied) -> None:
    """Let every block of a transformer rest on the CPU while it does not run, in place.

    Turns gradient checkpointing on. Adapters that are attached later stay on the device.

    Args:
        transformer: Frozen `EasyAnimateTransformer3DModel`; everything outside the blocks must be
            on the device.
        device: Device on which the blocks run.
        copy: Function that copies a tensor to the device.

    Raises:
        GeneratorError: A block has trainable parameters.
    """
    transformer.enable_gradient_checkpointing()
    for block in getattr(transformer, FAMILY.blocks):
        block.forward = _streamed(transformer, block, Offload([block], device, copy))


def _streamed(transformer: Any, block: Any, offload: Offload) -> Callable[..., Sequence[Any]]:
    forward = block.forward

    @functools.wraps(forward)
    def with_weights(*arguments: Any, **options: Any) -> Sequence[Any]:
        if torch.is_grad_enabled() and not transformer.gradient_checkpointing:
            # Without it autograd would save the weights of every block, or find them dropped.
            raise GeneratorError(
                "Streamed blocks need gradient checkpointing. Call "
                "transformer.enable_gradient_checkpointing(), or load the generator with "
                "memory=resident or memory=offload."
            )
        # A checkpoint ends its recomputation with an exception in the middle of the forward pass.
        with offload.at_work():
            return forward(*arguments, **options)

    return with_weights
