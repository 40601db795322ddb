"""Frozen linear layers whose weights are stored in 8 or 4 bits.

============  ===========================================  ===============  =============
kind          stored                                       bits per weight  library
============  ===========================================  ===============  =============
int8          integers, one fp32 scale per output row      8                bitsandbytes
nf4           QLoRA's 16 levels (arXiv 2305.14314), one    4.5              bitsandbytes
              fp32 scale for 64 weights
fp8           float8_e4m3fn, one fp32 scale per output     8                PyTorch
              row
int8-compute  as int8, rotated                             8                PyTorch
fp8-compute   as fp8, rotated                              8                PyTorch
============  ===========================================  ===============  =============

Of int8, nf4 and fp8 the weight is unpacked for each product, forward and backward; activations are
not quantised. The last two also compute in 8 bits (`base_model.memory.eight_bit_compute`). A full
weight is kept neither by the module nor by autograd.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from base_model.errors import GeneratorError
from base_model.memory.eight_bit_compute import EightBitCompute

Quantise = Literal["int8", "nf4", "fp8", "int8-compute", "fp8-compute"]

Packed = tuple[Tensor, ...]

_LARGEST_FP8 = torch.finfo(torch.float8_e4m3fn).max  # 448
_NF4_BLOCK = 64  # weights that share a scale; the default of bitsandbytes


class Codec(Protocol):
    """Storage format of a weight."""

    def pack(self, weight: Tensor) -> Packed:
        """Pack a weight `(out, in)`."""

    def unpack(self, packed: Packed, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """Unpack to a weight of this shape and dtype."""


class _Int8:
    def pack(self, weight: Tensor) -> Packed:
        # The CUDA kernel takes float16 only; the cast rounds an eighth as much as the packing.
        packed, largest, _ = _bitsandbytes().int8_vectorwise_quant(weight.to(torch.float16))
        return packed, largest

    def unpack(self, packed: Packed, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        return _bitsandbytes().int8_vectorwise_dequant(*packed).to(dtype)


class _NF4:
    def pack(self, weight: Tensor) -> Packed:
        packed, state = _bitsandbytes().quantize_4bit(
            weight.to(torch.float32).contiguous(),
            blocksize=_NF4_BLOCK,
            compress_statistics=False,
            quant_type="nf4",
        )
        return packed, state.absmax, state.code

    def unpack(self, packed: Packed, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        library = _bitsandbytes()
        numbers, largest, levels = packed
        state = library.QuantState(
            absmax=largest,
            shape=torch.Size(shape),
            code=levels,
            blocksize=_NF4_BLOCK,
            quant_type="nf4",
            dtype=torch.float32 if dtype == torch.float64 else dtype,
        )
        return library.dequantize_4bit(numbers, state).to(dtype)


class _FP8:
    def pack(self, weight: Tensor) -> Packed:
        weight = weight.to(torch.float32)
        scale = weight.abs().amax(dim=1, keepdim=True) / _LARGEST_FP8
        scale = scale.clamp_min(torch.finfo(torch.float32).tiny)  # rows of zeros
        return (weight / scale).to(torch.float8_e4m3fn), scale

    def unpack(self, packed: Packed, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        numbers, scale = packed
        return (numbers.to(torch.float32) * scale).to(dtype)


_CODECS: Mapping[Quantise, Codec] = {
    "int8": _Int8(),
    "nf4": _NF4(),
    "fp8": _FP8(),
    "int8-compute": EightBitCompute(torch.int8),
    "fp8-compute": EightBitCompute(torch.float8_e4m3fn),
}


class QuantisedLinear(nn.Linear):
    """A frozen linear layer that holds its weight packed.

    The packed tensors are buffers, so that the layer moves and is offloaded like any other; they
    are not in its state_dict. Reading `weight` unpacks it.

    Args:
        weight: `(out, in)`, on the device that packs it.
        kind: Storage format.
        home: Device of the packed weight; None is the weight's device.
        codec: Packs and unpacks in place of the kind's own.
    """

    def __init__(
        self,
        weight: Tensor,
        kind: Quantise,
        home: str | torch.device | None = None,
        codec: Codec | None = None,
    ) -> None:
        nn.Module.__init__(self)  # nn.Linear's own allocates a full weight
        self.out_features, self.in_features = weight.shape
        self.kind: Quantise = kind
        self._dtype = weight.dtype
        self._codec = codec or _CODECS[kind]
        packed = self._codec.pack(weight)
        self._parts = len(packed)
        for number, tensor in enumerate(packed):
            self.register_buffer(f"packed_{number}", tensor.to(home), persistent=False)
        self.register_parameter("bias", None)

    @property
    def packed(self) -> Packed:
        """The packed tensors."""
        return tuple(self.get_buffer(f"packed_{number}") for number in range(self._parts))

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The weight used in products, `(out, in)`, unpacked on every access."""
        return self.unpacked(self.packed, self._dtype)

    def unpacked(self, packed: Packed, dtype: torch.dtype) -> Tensor:
        """Unpack a weight `(out, in)` from packed tensors, which may be copies elsewhere."""
        shape = (self.out_features, self.in_features)
        return self._codec.unpack(packed, shape, dtype)

    def forward(self, input: Tensor) -> Tensor:
        """Return `input @ weight.T + bias`, `(..., in)` -> `(..., out)`, in the input's dtype."""
        if not isinstance(self._codec, EightBitCompute):
            return _Product.apply(input, self, *self.packed)
        found = _EightBitProduct.apply(
            input.reshape(-1, self.in_features), self._codec, *self.packed
        )
        found = found.view(*input.shape[:-1], self.out_features)
        return found if self.bias is None else found + self.bias

    def extra_repr(self) -> str:
        """Describe the layer for `print`."""
        return f"in_features={self.in_features}, out_features={self.out_features}, {self.kind}"


class _Product(torch.autograd.Function):
    """Product for which autograd saves only the packed weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantisedLinear, *packed: Tensor) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(*packed)  # the layer may be offloaded by the backward pass
        return F.linear(x, layer.unpacked(packed, x.dtype), layer.bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        packed = ctx.saved_tensors
        weight = ctx.layer.unpacked(packed, gradient.dtype)
        return (gradient @ weight, None, *(None for _ in packed))


class _EightBitProduct(torch.autograd.Function):
    """Product of rows in 8 bits, whose gradient is another one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, codec: EightBitCompute, *packed: Tensor) -> Tensor:
        ctx.codec = codec
        ctx.save_for_backward(*packed)
        return codec.product(x, packed)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        packed = ctx.saved_tensors
        return (ctx.codec.gradient(gradient, packed), None, *(None for _ in packed))


def quantised(
    model: nn.Module, name: str, weight: Tensor, kind: Quantise, home: str | torch.device
) -> bool:
    """Replace a linear layer by a quantised one, if `name` is the weight of a linear layer.

    Args:
        model: Module; its own tensors may be on the meta device.
        name: Name of a parameter, such as "blocks.0.ff.weight".
        weight: Its value, on the device that packs it.
        kind: Storage format.
        home: Device of the packed weight.

    Returns:
        Whether the layer was replaced; it keeps the model's bias.
    """
    path, _, leaf = name.rpartition(".")
    layer = model.get_submodule(path)
    if leaf != "weight" or not isinstance(layer, nn.Linear):
        return False
    parent, _, child = path.rpartition(".")
    new = QuantisedLinear(weight, kind, home)
    new.bias = layer.bias
    setattr(model.get_submodule(parent), child, new)
    return True


def require(kind: Quantise, device: str | torch.device) -> None:
    """Pack, unpack and use one small weight, so that an unusable kind is refused before loading.

    Raises:
        GeneratorError: The library is missing, or does not support the format on this device.
    """
    weight = torch.linspace(-1.0, 1.0, 64 * 64, device=device).view(64, 64)
    try:
        codec = _CODECS[kind]
        packed = codec.pack(weight)
        codec.unpack(packed, (64, 64), torch.float32)
        if isinstance(codec, EightBitCompute):
            codec.gradient(codec.product(weight, packed), packed)
    except (RuntimeError, NotImplementedError, AttributeError, ValueError) as error:
        if isinstance(error, GeneratorError):
            raise
        library = "bitsandbytes" if kind in {"int8", "nf4"} else "PyTorch"
        lines = str(error).strip().splitlines() or [type(error).__name__]
        others = ", ".join(other for other in _CODECS if other != kind)
        raise GeneratorError(
            f"quantise={kind}: the installed {library} does not support it on {device} "
            f"({lines[0]}). Use another kind ({others}), another device, or no quantisation."
        ) from error


@functools.cache
def _bitsandbytes() -> Any:
    try:
        return importlib.import_module("bitsandbytes.functional")
    except ImportError as error:
        raise GeneratorError(
            f"quantise=int8 and nf4 need bitsandbytes, which cannot be imported ({error}). Install "
            'it with `pip install "bitsandbytes>=0.46"`, or use quantise=fp8 or int8-compute.'
        ) from error
