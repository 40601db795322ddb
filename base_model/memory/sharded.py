"""Transformer blocks whose frozen weights are spread over the processes of a training (FSDP2).

Each process keeps a part of every weight. A block's weights are gathered for its forward pass and
again for its backward pass, and dropped after each. The trained adapter is whole on every process,
in a dtype of its own, and its gradient is left to the caller.

Gathering needs every process: all of them make the same calls in the same order, or they wait for
one another for ever. What one process does alone belongs into `whole_blocks`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed, nn

from base_model.core.family import FAMILY
from base_model.errors import GeneratorError


def share_blocks(transformer: Any, replicated: Iterable[nn.Parameter]) -> None:
    """Spread the weights of the blocks over all processes, in place; every process calls it.

    Args:
        transformer: `EasyAnimateTransformer3DModel`, frozen but for `replicated`, on the device
            that computes.
        replicated: Parameters that stay whole on every process, such as an adapter's.

    Raises:
        GeneratorError: There is one process alone, or a weight outside `replicated` is trained.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if not (distributed.is_initialized() and distributed.get_world_size() > 1):
        raise GeneratorError(
            "memory=sharded spreads weights over several processes, and this one is alone. Start "
            "several with torchrun, or use memory=resident, offload or block-offload."
        )
    if "ignored_params" not in inspect.signature(fully_shard).parameters:
        raise GeneratorError(
            f"memory=sharded needs FSDP2 with ignored_params, which torch {torch.__version__} does "
            "not have. Install torch 2.7 or newer, or use memory=resident."
        )
    kept = set(replicated)
    blocks = getattr(transformer, FAMILY.blocks)
    if any(p.requires_grad for p in blocks.parameters() if p not in kept):
        raise GeneratorError(
            "memory=sharded is for frozen weights, and one of them is trained. Train an adapter, "
            "or use memory=resident."
        )
    device = next(transformer.parameters()).device
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True, ignored_params=kept)


@contextmanager
def whole_blocks(transformer: Any) -> Iterator[None]:
    """Keep the blocks whole on every process, so that each can call the model as often as it likes.

    Every process enters it; contexts nest. Without `share_blocks` it does nothing. The device holds
    all weights within it.
    """
    shared = [block for block in _shared(transformer) if not _is_whole(block)]
    for block in shared:
        block.set_reshard_after_forward(False)
        block.unshard()
    try:
        yield
    finally:
        for block in shared:
            block.reshard()
            block.set_reshard_after_forward(True)


def _shared(transformer: Any) -> list[Any]:
    from torch.distributed.fsdp import FSDPModule

    blocks = getattr(transformer, FAMILY.blocks, ())
    return [block for block in blocks if isinstance(block, FSDPModule)]


def _is_whole(block: Any) -> bool:
    from torch.distributed.tensor import DTensor

    return not any(isinstance(parameter, DTensor) for parameter in block.parameters())


def bytes_here(module: nn.Module) -> int:
    """Return the bytes of a module's parameters that this process holds."""
    from torch.distributed.tensor import DTensor

    tensors: list[torch.Tensor] = [
        p.to_local() if isinstance(p, DTensor) else p for p in module.parameters()
    ]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
