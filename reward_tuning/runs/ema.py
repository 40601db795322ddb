"""A moving average of the trained weights, which is exported instead of them where it is on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Ema:
    """Moving average `e <- d e + (1 - d) w` of named tensors.

    The decay starts low, d = min(decay, (1 + n) / (10 + n)) at update n, so that a short run does
    not export a mixture with its start, where the adapter is zero.

    Args:
        state: First value of the average; copied.
        decay: d in the long run, in (0, 1).
    """

    def __init__(self, state: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.state = {name: tensor.detach().clone() for name, tensor in state.items()}

    @torch.no_grad()
    def update(self, state: Mapping[str, Tensor]) -> None:
        """Update the average with the weights after an optimiser step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, average in self.state.items():
            average.lerp_(state[name], 1.0 - decay)
        self.updates += 1

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor], updates: int) -> None:
        """Restore a saved average, bit for bit."""
        assert state.keys() == self.state.keys()
        for name, average in self.state.items():
            average.copy_(state[name])
        self.updates = updates
