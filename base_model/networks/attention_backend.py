"""Choice among PyTorch's attention kernels.

All compute the same attention and differ in speed, memory and rounding. PyTorch takes the fastest
one available; a fixed one serves comparisons, runs that repeat bit for bit, and hardware on which
one kernel misbehaves.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, zeros
from torch.nn.attention import SDPBackend, sdpa_kernel

from base_model.errors import GeneratorError

Attention = Literal["auto", "math", "flash", "efficient", "cudnn"]
"""`auto` leaves the choice to PyTorch; `math` is plain matrix products, everywhere."""

_BACKENDS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


@contextmanager
def attention_backend(attention: Attention, like: Tensor | None = None) -> Iterator[None]:
    """Run attention on one backend within the context.

    A backward pass that repeats forward passes (checkpoints) belongs inside the context, too.

    Args:
        attention: Backend.
        like: Tensor with the device and dtype of the attention, on which the backend is tried
            first. None tries a CPU tensor in float32.

    Raises:
        GeneratorError: The backend is unknown, or cannot run on this device and dtype.
    """
    if attention not in get_args(Attention):
        raise GeneratorError(
            f"Attention {attention!r} is unknown; allowed: {', '.join(get_args(Attention))}."
        )
    if attention == "auto":
        yield
        return
    with sdpa_kernel(_BACKENDS[attention]):
        _try(attention, zeros(1) if like is None else like)
        yield


def _try(attention: Attention, like: Tensor) -> None:
    """Run one small attention, so that an unusable backend fails before the work."""
    query = like.new_zeros(1, 1, 8, 64)
    try:
        F.scaled_dot_product_attention(query, query, query)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise GeneratorError(
            f"Attention {attention!r} cannot run on {like.device.type} in {like.dtype}: {reason} "
            "Use 'auto', or 'math', which runs everywhere."
        ) from error
