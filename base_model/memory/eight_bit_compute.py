"""Products in 8 bits, integers or float8, forward and backward: both factors are rounded.

Weights have one scale per output row, activations one per token, found anew in each product. Both
are first rotated along the input by Hadamard matrices on groups of channels, which spreads a
channel of large values over its group and leaves the product as it is: (x R)(W R)^T = x W^T
(QuaRot, arXiv 2404.00456). The gradient of the input is a product in 8 bits, too: the rows' scales
go into the incoming gradient g, (g s) Q R^T, which has one scale per token.

A product of at most 16 rows, such as of the time embedding, moves weights rather than computes: its
weight is unpacked, and it is exact.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from base_model.errors import GeneratorError

FEW_ROWS = 16
"""torch._int_mm on CUDA takes more."""
GROUP = 128
"""Channels that are rotated together, at most."""
_LARGEST_INT8 = 127.0
_LARGEST_FP8 = torch.finfo(torch.float8_e4m3fn).max  # 448


class EightBitCompute:
    """A weight in 8 bits, and its products; see `base_model.memory.quantise.Codec`.

    Args:
        dtype: `torch.int8` or `torch.float8_e4m3fn`.
        group: Channels that are rotated together, at most; 1 rotates nothing.
        exact_backward: Unpack the weight for the gradient of the input, and do not round the
            incoming one.
    """

    def __init__(
        self, dtype: torch.dtype, group: int = GROUP, *, exact_backward: bool = False
    ) -> None:
        self._dtype, self._group, self._exact_backward = dtype, group, exact_backward

    def pack(self, weight: Tensor) -> tuple[Tensor, ...]:
        """Pack a weight `(out, in)` to numbers of that shape and scales `(out, 1)`.

        Raises:
            GeneratorError: The kernels take no matrix of this shape.
        """
        unit = 8 if self._dtype == torch.int8 else 16
        if any(side % unit for side in weight.shape):
            raise GeneratorError(
                f"quantise: a layer of {weight.shape[1]} inputs and {weight.shape[0]} outputs has "
                f"no product in 8 bits; both must be multiples of {unit}. Use quantise=int8, fp8 "
                "or nf4, which store 8 or 4 bits and compute in generator.dtype"
            )
        return self._rows(rotated(weight.to(torch.float32), self._group))

    def unpack(
        self, packed: tuple[Tensor, ...], shape: tuple[int, int], dtype: torch.dtype
    ) -> Tensor:
        """Unpack to a weight of this shape and dtype, rotated back."""
        numbers, scale = packed
        return rotated(numbers.to(torch.float32) * scale, self._group).to(dtype)

    def product(self, x: Tensor, packed: tuple[Tensor, ...]) -> Tensor:
        """Return `x @ weight.T`, `(rows, in)` -> `(rows, out)`, in the dtype of `x`."""
        numbers, scale = packed
        if len(x) <= FEW_ROWS:
            return F.linear(x, self.unpack(packed, _shape(numbers), x.dtype))
        rounded, of_rows = self._rows(rotated(x, self._group))
        found = self._matmul(rounded, numbers.t(), x.dtype)
        return found.to(torch.float32).mul_(of_rows).mul_(scale.t()).to(x.dtype)

    def gradient(self, gradient: Tensor, packed: tuple[Tensor, ...]) -> Tensor:
        """Return the gradient of `product`'s input, `(rows, out)` -> `(rows, in)`."""
        numbers, scale = packed
        dtype = gradient.dtype
        if len(gradient) <= FEW_ROWS or self._exact_backward:
            return gradient @ self.unpack(packed, _shape(numbers), dtype)
        rounded, of_rows = self._rows(gradient.to(torch.float32) * scale.t())
        # float8 kernels take the second factor by columns.
        second = numbers if self._dtype == torch.int8 else numbers.t().contiguous().t()
        found = self._matmul(rounded, second, dtype)
        return rotated(found.to(torch.float32).mul_(of_rows).to(dtype), self._group)

    def _rows(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Round each row to its own scale."""
        x = x.to(torch.float32)
        largest = _LARGEST_INT8 if self._dtype == torch.int8 else _LARGEST_FP8
        scale = x.abs().amax(dim=1, keepdim=True) / largest
        scale = scale.clamp_min(torch.finfo(torch.float32).tiny)  # rows of zeros
        x = x / scale
        return (x.round_() if self._dtype == torch.int8 else x).to(self._dtype), scale

    def _matmul(self, a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
        a = a.contiguous()  # an incoming gradient may be transposed
        if self._dtype == torch.int8:
            return torch._int_mm(a, b)
        # Scales per row need a newer card than float8 itself, so they are applied outside.
        one = torch.ones((), device=a.device)
        out = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32
        return torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=out)


def rotated(x: Tensor, group: int) -> Tensor:
    """Multiply groups of a row's channels by a Hadamard matrix; twice is the identity.

    Args:
        x: `(rows, channels)`.
        group: Channels of a group, at most; the largest power of two that divides them is taken.
    """
    channels = x.shape[1]
    size = math.gcd(channels, group)
    if size == 1:
        return x
    return (x.unflatten(1, (-1, size)) @ hadamard(size, x.device, x.dtype)).flatten(1)


@functools.cache
def hadamard(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the orthogonal, symmetric Hadamard matrix of a power of two (Sylvester's)."""
    with torch.inference_mode(False):  # it may be kept for a graph
        matrix = torch.ones(1, 1, dtype=torch.float64)
        while len(matrix) < size:
            matrix = torch.kron(torch.tensor([[1, 1], [1, -1]]), matrix)
        return (matrix / math.sqrt(size)).to(device, dtype)


def _shape(numbers: Tensor) -> tuple[int, int]:
    rows, columns = numbers.shape
    return rows, columns
