"""The inputs of checkpointed blocks in the CPU's memory until the backward pass needs them.

With gradient checkpointing a graph holds the inputs of each block. These go to the CPU as a block
begins and come back as the backward pass repeats it, both in the stream of the computation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from base_model.errors import GeneratorError


def away(tensor: Tensor) -> Tensor:
    """Copy a tensor to the CPU's memory, pinned for a CUDA device, in stream order."""
    there = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda)
    return there.copy_(tensor, non_blocking=tensor.is_cuda)


def back(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor back, in stream order."""
    return tensor.to(device, non_blocking=True)


def offload_activations(
    transformer: Any,
    away: Callable[[Tensor], Tensor] = away,
    back: Callable[[Tensor, torch.device], Tensor] = back,
) -> None:
    """Let a transformer's graphs hold the inputs of its blocks in the CPU's memory, in place.

    Without effect on numbers. On the CPU it costs a copy and saves nothing.

    Args:
        transformer: `EasyAnimateTransformer3DModel` with gradient checkpointing.
        away: Function that copies a tensor to the CPU.
        back: Function that copies it back to its device.

    Raises:
        GeneratorError: Gradient checkpointing is off: every activation would travel.
    """
    if not transformer.gradient_checkpointing:
        raise GeneratorError(
            "Activations are offloaded block by block, which needs gradient checkpointing. Call "
            "transformer.enable_gradient_checkpointing() first."
        )
    checkpoint = transformer._gradient_checkpointing_func

    def offloaded(block: Any, video: Tensor, text: Tensor, *rest: Any) -> Any:
        # The time embedding and the rotary table are shared by all blocks and stay.
        moved = {video.data_ptr(), text.data_ptr()}

        def pack(tensor: Tensor) -> tuple[Tensor, torch.device | None]:
            if tensor.data_ptr() not in moved:
                return tensor, None
            return away(tensor.detach()), tensor.device

        def unpack(packed: tuple[Tensor, torch.device | None]) -> Tensor:
            tensor, device = packed
            return tensor if device is None else back(tensor, device)

        # Within a block the checkpoint's own hooks hold: here only its inputs are seen.
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            return checkpoint(block, video, text, *rest)

    transformer._gradient_checkpointing_func = offloaded
