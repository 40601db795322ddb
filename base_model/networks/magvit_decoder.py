"""The Magvit decoder on one latent frame: the past of its convolutions in, and out again.

It runs the modules of diffusers' `EasyAnimateDecoder`, whose own forward pass keeps the past on the
modules. The values are the same to the bit; divisions by 1 and dropout with rate 0 are left out.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl_magvit import EasyAnimateCausalConv3d
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from base_model.networks.causal_convolution import causal_convolution


def causal_convolutions(decoder: Any) -> list[Any]:
    """Return the decoder's causal convolutions, in the order in which they run."""
    return [m for m in decoder.modules() if isinstance(m, EasyAnimateCausalConv3d)]


class LatentDecoding:
    """One run of the decoder on one latent frame.

    Args:
        decoder: An `EasyAnimateDecoder`.
        first: True for the first latent frame of a clip, which becomes one frame of video.
        past: Past of each causal convolution, in the order in which they run; None at the start.
        checkpointing: Keep the input of each norm alone for the backward pass, which repeats norm
            and activation; a frozen convolution keeps nothing and is not repeated.
        around: Function that returns a context, which is entered around each norm and its
            activation, also where the backward pass repeats them.
        keep: Whether the next latent frame follows.

    Attributes:
        past: The same for the next latent frame, once the decoder has run; empty where none
            follows.
    """

    def __init__(
        self,
        decoder: Any,
        *,
        first: bool,
        past: tuple[Tensor | None, ...],
        checkpointing: bool = False,
        around: Callable[[], AbstractContextManager[None]] = nullcontext,
        keep: bool = True,
    ) -> None:
        self.decoder = decoder
        self.first = first
        self.past: list[Tensor] = []
        self._before: Iterator[Tensor | None] = iter(past)
        self._checkpointing, self._around, self._keep = checkpointing, around, keep

    def __call__(self, z: Tensor) -> Tensor:
        """Decode `(b, 16, 1, h, w)` to `(b, 3, 1 or 4, 8 h, 8 w)`."""
        decoder = self.decoder
        x = self._convolved(decoder.conv_in, z)
        for block in decoder.mid_block.convs:
            x = self._residual(block, x)
        for up in decoder.up_blocks:
            for block in up.convs:
                x = self._residual(block, x)
            if up.upsampler is not None:
                x = self._upsampled(up.upsampler, x)
        by_frame = decoder.spatial_group_norm
        x = self._activated(decoder.conv_norm_out, decoder.conv_act, x, by_frame)
        return self._convolved(decoder.conv_out, x)

    def _convolved(self, conv: Any, x: Tensor) -> Tensor:
        y, past = causal_convolution(conv, x, next(self._before), keep=self._keep)
        if past is not None:
            self.past.append(past)
        return y

    def _residual(self, block: Any, x: Tensor) -> Tensor:
        by_frame, shortcut = block.spatial_group_norm, block.shortcut(x)
        x = self._convolved(
            block.conv1, self._activated(block.norm1, block.nonlinearity, x, by_frame)
        )
        x = self._convolved(
            block.conv2, self._activated(block.norm2, block.nonlinearity, x, by_frame)
        )
        x = x + shortcut
        return x if block.output_scale_factor == 1 else x / block.output_scale_factor

    def _upsampled(self, upsampler: Any, x: Tensor) -> Tensor:
        x = self._convolved(upsampler.conv, F.interpolate(x, scale_factor=(1, 2, 2)))
        if upsampler.temporal_upsample and not self.first:
            mode = "nearest" if upsampler.spatial_group_norm else "trilinear"
            x = F.interpolate(x, scale_factor=(2, 1, 1), mode=mode)
        return x

    def _activated(self, norm: Any, act: Any, x: Tensor, by_frame: bool) -> Tensor:
        if not self._checkpointing:
            return _activated(norm, act, x, by_frame, self._around)
        # The convolution stays outside: a function of one's own is repeated whole.
        y: Tensor = checkpoint(
            _activated,
            *(norm, act, x, by_frame, self._around),
            use_reentrant=False,
            preserve_rng_state=False,
        )
        return y


def _activated(
    norm: Any,
    act: Any,
    x: Tensor,
    by_frame: bool,
    around: Callable[[], AbstractContextManager[None]],
) -> Tensor:
    with around():
        y: Tensor = act(_normed(norm, x, by_frame))
    return y


def _normed(norm: Any, x: Tensor, by_frame: bool) -> Tensor:
    """Normalise `(b, c, f, h, w)`, with statistics of single frames or of all of them."""
    if not by_frame:
        normed: Tensor = norm(x)
        return normed
    frames = x.transpose(1, 2)
    return norm(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).transpose(1, 2)
