"""Transformer blocks that come to the device one by one, forward and backward, before their turn.

While a block computes, the weights of the next one are copied to the device: of the block after it
in the forward pass, of the block before it in the backward pass. With gradient checkpointing the
backward pass repeats a block's forward pass just before the block's own gradients: autograd saves
the copies used then, so they live until these are done. The device holds the weights of two blocks,
not of all, and nothing is copied back. Only the first block of a pass has to be waited for.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from base_model.core.family import FAMILY
from base_model.errors import GeneratorError
from base_model.memory.offload import CopyFn, Offload, already_there, copied
from base_model.memory.side_stream import SideStream


def stream_blocks(
    transformer: Any,
    device: torch.device,
    copy: CopyFn | None = None,
    arrived: Callable[[], None] = already_there,
) -> None:
    """Let every block of a transformer rest on the CPU while it does not run, in place.

    Turns gradient checkpointing on. Adapters that are attached later stay on the device.

    Args:
        transformer: Frozen `EasyAnimateTransformer3DModel`; everything outside the blocks must be
            on the device.
        device: Device on which the blocks run.
        copy: Function that copies a tensor to the device; None copies on a stream of its own on a
            CUDA device and in the computation's on others.
        arrived: With `copy`: called before the copies of a block are used (`Offload`).

    Raises:
        GeneratorError: A block has trainable parameters.
    """
    if copy is None:
        copy = copied
        if device.type == "cuda":
            side = SideStream(device)
            copy, arrived = side, side.arrived
    transformer.enable_gradient_checkpointing()
    blocks = list(getattr(transformer, FAMILY.blocks))
    order = _Order(transformer, [Offload([block], device, copy, arrived) for block in blocks])
    for index, block in enumerate(blocks):
        block.forward = _streamed(transformer, block, order, index)


class _Order:
    """The blocks in their order; knows in which direction they run.

    Args:
        transformer: Its forward pass runs the blocks upwards. Whatever runs them outside it is the
            backward pass, which repeats them downwards.
        offloads: Of each block.
    """

    def __init__(self, transformer: Any, offloads: Sequence[Offload]) -> None:
        self.offloads = offloads
        self._upwards = False
        transformer.register_forward_pre_hook(self._begin)
        transformer.register_forward_hook(self._end, always_call=True)

    def request_after(self, index: int, in_graph: bool) -> None:
        """Begin to copy the weights of the block that runs after this one.

        Args:
            index: Of the block that is at work.
            in_graph: Whether the block's inputs need a gradient: only then the backward pass goes
                on below it.
        """
        after = index + 1 if self._upwards else index - 1
        if 0 <= after < len(self.offloads) and (self._upwards or in_graph):
            self.offloads[after].request()

    def _begin(self, *arguments: object) -> None:
        self._upwards = True

    def _end(self, *arguments: object) -> None:
        self._upwards = False
        # A cache of steps skips blocks; an error ends the pass anywhere.
        for offload in self.offloads:
            offload.recall()


def _streamed(
    transformer: Any, block: Any, order: _Order, index: int
) -> Callable[..., Sequence[Any]]:
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
        with order.offloads[index].at_work():
            video, text = arguments[:2]
            order.request_after(index, video.requires_grad or text.requires_grad)
            return forward(*arguments, **options)

    return with_weights
