"""The forward pass of an adapted layer, without the work that changes no bit.

peft multiplies the adapter's part by its strength, even by 1, and adds it in a pass of its own;
here the second product adds to the base layer's result at once. For all else (a strength other
than 1, weights of several dtypes, an adapter that is off or merged, several adapters) peft's
own forward pass runs.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Linear
from torch import Tensor


def use_direct_forward(layer: Any, adapter: str) -> None:
    """Give a linear layer with a LoRA adapter the shorter forward pass, in place.

    Args:
        layer: peft's layer; one on quantised weights keeps its own forward pass.
        adapter: Name of the adapter.
    """
    if type(layer) is not Linear:
        return

    def forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        down, up = self.lora_A[adapter].weight, self.lora_B[adapter].weight
        if (
            args
            or kwargs
            or self.disable_adapters
            or self.merged
            or self.lora_variant
            or list(self.active_adapters) != [adapter]
            or self.scaling[adapter] != 1.0
            or not x.dtype == self.base_layer.weight.dtype == down.dtype
        ):
            result: Tensor = Linear.forward(self, x, *args, **kwargs)
            return result
        base = self.base_layer(x)
        inner = F.linear(x, down)
        return torch.addmm(base.flatten(0, -2), inner.flatten(0, -2), up.t()).view(base.shape)

    layer.forward = MethodType(forward, layer)
