"""Which of PyTorch's attention kernels runs.

All compute the same attention and differ in speed, memory and rounding. PyTorch takes the fastest
that fits; a fixed one is for comparing, for repeating a run bit for bit, and for leaving out a
kernel that misbehaves on some hardware.
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
    """Attention inside runs on one backend.

    A backward pass that repeats forward passes (checkpoints) belongs inside, too.

    Args:
        attention: Which one.
        like: A tensor of the device and dtype that attention will have: the backend is tried on it
            first. None tries on a CPU tensor in float32.

    Raises:
        GeneratorError: When there is no such backend, or it cannot run on this device and dtype.
    """
    if attention not in get_args(Attention):
        raise GeneratorError(
            f"Attention {attention!r} is not known; allowed are {', '.join(get_args(Attention))}."
        )
    if attention == "auto":
        yield
        return
    with sdpa_kernel(_BACKENDS[attention]):
        _try(attention, zeros(1) if like is None else like)
        yield


def _try(attention: Attention, like: Tensor) -> None:
    """One small attention, so that a backend that cannot run says so before the work."""
    query = like.new_zeros(1, 1, 8, 64)
    try:
        F.scaled_dot_product_attention(query, query, query)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise GeneratorError(
            f"Attention {attention!r} cannot run on {like.device.type} in {like.dtype}: {reason} "
            "Take 'auto', or 'math', which runs everywhere."
        ) from error
