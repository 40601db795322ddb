"""Weights that nobody trained: random values, or shapes alone on the meta device."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from reward_tuning.seeds import derive_seed

STD = 0.02
"""Of random weights outside convolutions: a velocity of 3,072 channels stays near 1."""


def fill(module: nn.Module, weights: RandomWeights, dtype: torch.dtype | None = None) -> None:
    """Give a module from the meta device its values; None keeps each tensor's dtype."""
    state = {
        name: weights(name, like, dtype or like.dtype) for name, like in module.state_dict().items()
    }
    module.load_state_dict(state, strict=True, assign=True)


class RandomWeights:
    """Random values of a tensor by its name: ones and zeros for norms, else normal.

    A convolution keeps the size of its input (He et al., arXiv 1502.01852).
    """

    def __init__(self, device: torch.device, seed: str) -> None:
        self._device = device
        self._draw = None
        if device.type != "meta":
            self._draw = torch.Generator(device).manual_seed(derive_seed(0, seed) % 2**63)

    def __call__(self, name: str, like: Tensor, dtype: torch.dtype) -> Tensor:
        """Return values for a tensor of the shape of `like`."""
        x = torch.empty(like.shape, dtype=dtype, device=self._device)
        if self._draw is None:
            return x
        if like.dim() == 1 and name.endswith(".bias"):
            return x.zero_()
        if like.dim() == 1 and name.endswith(".weight"):
            return x.fill_(1.0)
        std = math.sqrt(2.0 / like[0].numel()) if like.dim() > 3 else STD
        return x.normal_(0.0, std, generator=self._draw)
