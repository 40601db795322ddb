"""Memory that a convolution takes for itself on a CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, float32

ONEDNN_FROM = 20_480
"""Batch * channels * frames * height of the input from which on oneDNN computes it, as `use_mkldnn`
in PyTorch's Convolution.cpp decides."""
ONEDNN_SIDE = 3
"""oneDNN also computes kernels wider and higher than this."""
BLOCK = 16
"""Channels that oneDNN keeps together on CPUs with 512-bit vectors."""


def scratch_bytes(arguments: Sequence[Any], output: Tensor) -> int:
    """Return the bytes that one `aten.convolution` in float32 takes for itself.

    PyTorch's own kernel lays the patches out as columns; oneDNN copies input and output into blocks
    of channels.

    Args:
        arguments: Input, weight, bias, stride, padding, dilation, transposed, output padding and
            groups.
        output: Its result.
    """
    x, weight, transposed, groups = arguments[0], arguments[1], arguments[6], arguments[8]
    if x.dim() != 5 or x.dtype != float32 or math.prod(weight.shape[2:]) == 1:
        return 0
    large = min(weight.shape[3:]) > ONEDNN_SIDE
    if groups > 1 or large or x.shape[0] > 1 or math.prod(x.shape[:4]) > ONEDNN_FROM:
        return _blocks(output) + (_blocks(x) if x.shape[1] >= BLOCK else 0)
    places = x if transposed else output
    rows: int = math.prod(weight.shape[1:])
    return rows * math.prod(places.shape[2:]) * x.element_size()


def _blocks(x: Tensor) -> int:
    channels = -(-x.shape[1] // BLOCK) * BLOCK
    return channels * x.shape[0] * math.prod(x.shape[2:]) * x.element_size()
