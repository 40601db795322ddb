"""The causal convolution of the Magvit decoder over the frames of one latent, in one call.

diffusers' `EasyAnimateCausalConv3d` runs one convolution for each output frame, on a slice of its
input. Its backward pass fills zeros of the whole input's size for each slice and adds them up,
which takes up to half as long as the convolutions. Here the forward pass is one convolution, and
the backward pass adds the gradient of each frame to that of the three frames it sees, in
the same order: the same values to the bit.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

TAPS = 3
"""Frames that an output frame sees: its own and the two before it."""


def causal_convolution(conv: Any, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
    """Convolve frames with the frames before them.

    Args:
        conv: An `EasyAnimateCausalConv3d` of three taps and stride 1. Its own cache is neither read
            nor written.
        x: `(b, c, f, h, w)`.
        past: `(b, c, 2, h, w)`, the frames before x. None at the start of a clip, where the first
            frame stands for those before it.

    Returns:
        `(b, c', f, h, w)`, and the past of the next frames.
    """
    if past is None:
        past = x[:, :, :1].expand(-1, -1, TAPS - 1, -1, -1)
    seen = torch.cat([past, x], dim=2)
    # A copy: a view would keep the whole input in memory until the next latent frame.
    state = seen[:, :, -(TAPS - 1) :].clone()
    if torch.is_grad_enabled() and conv.weight.requires_grad:  # training of the VAE itself
        frames = [
            F.conv3d(seen[:, :, i : i + TAPS], conv.weight, conv.bias, padding=conv.padding)
            for i in range(x.shape[2])
        ]
        return torch.cat(frames, dim=2), state
    y: Tensor = _FrozenConvolution.apply(seen, conv.weight, conv.bias, conv.padding)
    return y, state


class _FrozenConvolution(torch.autograd.Function):
    """A 3D convolution of stride 1, differentiable in its input alone.

    It keeps no activation: the gradient of the input needs the weights and no values.
    """

    @staticmethod
    def forward(
        ctx: Any, seen: Tensor, weight: Tensor, bias: Tensor, padding: tuple[int, int, int]
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.padding = seen.shape, padding
        return F.conv3d(seen, weight, bias, padding=padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        batch, channels, _, height, width = ctx.shape
        gradient = g.new_zeros(ctx.shape)
        # The operator wants an input and reads its shape alone.
        shaped = g.new_empty(batch, channels, TAPS, height, width)
        # Last frame first, as autograd does: sums round differently in another order.
        for i in reversed(range(g.shape[2])):
            gradient[:, :, i : i + TAPS] += torch.ops.aten.convolution_backward(
                g[:, :, i : i + 1],
                shaped,
                weight,
                None,
                [1, 1, 1],
                list(ctx.padding),
                [1, 1, 1],
                False,
                [0, 0, 0],
                1,
                [True, False, False],
            )[0]
        return gradient, None, None, None
