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


def causal_convolution(
    conv: Any, x: Tensor, past: Tensor | None, *, keep: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Convolve frames with the frames before them.

    Args:
        conv: An `EasyAnimateCausalConv3d` of three taps and stride 1. Its own cache is neither read
            nor written.
        x: `(b, c, f, h, w)`.
        past: `(b, c, 2, h, w)`, the frames before x. None at the start of a clip, where the first
            frame stands for those before it.
        keep: Whether further frames follow.

    Returns:
        `(b, c', f, h, w)`, and the past of the next frames; None where none follow.
    """
    if past is None:
        past = x[:, :, :1].expand(-1, -1, TAPS - 1, -1, -1)
    if torch.is_grad_enabled() and conv.weight.requires_grad:  # training of the VAE itself
        seen, state = _joined(past, x, keep)
        frames = [
            F.conv3d(seen[:, :, i : i + TAPS], conv.weight, conv.bias, padding=conv.padding)
            for i in range(x.shape[2])
        ]
        return torch.cat(frames, dim=2), state
    y, state = _FrozenConvolution.apply(past, x, conv.weight, conv.bias, conv.padding, keep)
    return y, state


def _joined(past: Tensor, x: Tensor, keep: bool) -> tuple[Tensor, Tensor | None]:
    """Return the frames that are seen, and the past of the next ones."""
    seen = torch.cat([past, x], dim=2)
    # A copy: a view would keep the whole input in memory until the next latent frame.
    return seen, seen[:, :, -(TAPS - 1) :].clone() if keep else None


class _FrozenConvolution(torch.autograd.Function):
    """A 3D convolution of stride 1 with its past, differentiable in its inputs alone.

    It keeps no activation: the gradient of the input needs the weights and no values.
    """

    @staticmethod
    def forward(
        ctx: Any,
        past: Tensor,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        padding: tuple[int, int, int],
        keep: bool,
    ) -> tuple[Tensor, Tensor | None]:
        seen, state = _joined(past, x, keep)
        ctx.save_for_backward(weight)
        ctx.shape, ctx.padding = seen.shape, padding
        ctx.set_materialize_grads(False)
        return F.conv3d(seen, weight, bias, padding=padding), state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor | None, g_state: Tensor | None) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        some = g if g is not None else g_state
        if some is None:
            return (None,) * 6
        batch, channels, _, height, width = ctx.shape
        gradient = some.new_zeros(ctx.shape)
        # The operator wants an input and reads its shape alone.
        shaped = some.new_empty(batch, channels, TAPS, height, width)
        # Last frame first, as autograd does: sums round differently in another order.
        for i in reversed(range(g.shape[2] if g is not None else 0)):
            assert g is not None
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
        if g_state is not None:
            gradient[:, :, -(TAPS - 1) :] += g_state
        # A copy: the gradient of the past waits until the latent frame is through, and a view
        # would keep that of all frames.
        of_past = gradient[:, :, : TAPS - 1].clone()
        return of_past, gradient[:, :, TAPS - 1 :], None, None, None, None
