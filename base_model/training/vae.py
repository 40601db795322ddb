"""Training of the Magvit VAE: cache-free convolutions, a frame-wise start, and the loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLMagvit
from diffusers.models.autoencoders.autoencoder_kl_magvit import (
    EasyAnimateCausalConv3d,
    EasyAnimateUpsampler3D,
)
from torch import Tensor, nn

PAST_TAP_RATE = 0.2
"""Share of the learning rate for the past taps of causal kernels."""

LOG_VARIANCE_START = -4.0
KL_WEIGHT = 1e-5
L1_WEIGHT = 0.1


def start_frame_wise(vae: AutoencoderKLMagvit, generator: torch.Generator) -> None:
    """Initialise every kernel with unit gain, and causal ones to see only the present frame.

    With the default initialisation a decoder's output frames differ by 3e-5 and training stays at
    the temporal mean (18 dB), so past taps start at 0. The default gain of 1/sqrt(3) per layer also
    drowns the latents in the biases: after 300 steps of 8 images it reached 16.9 dB without any
    colour, and unit gain 20.9 dB. The posterior starts narrow.

    Args:
        vae: VAE, changed in place.
        generator: Random generator.
    """
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, nn.Conv3d):
                _, fan_in, _, height, width = module.weight.shape
                present = torch.empty_like(module.weight[:, :, -1])
                present.normal_(0.0, (fan_in * height * width) ** -0.5, generator=generator)
                module.weight.zero_()
                module.weight[:, :, -1] = present
                assert module.bias is not None
                module.bias.zero_()
        channels = vae.config.latent_channels
        vae.quant_conv.bias[channels:] = LOG_VARIANCE_START
        vae.quant_conv.weight[channels:] *= 0.1


@contextmanager
def slow_past_taps(vae: AutoencoderKLMagvit, rate: float) -> Iterator[None]:
    """Reduce the change of past taps in one optimiser step to the share `rate` (0 keeps them).

    On single images every tap sees the same frame: training past taps there would only triple the
    present tap's learning rate and teach nothing about time.
    """
    convs = [m for m in vae.modules() if isinstance(m, EasyAnimateCausalConv3d)]
    before = [m.weight.detach()[:, :, :-1].clone() for m in convs]
    yield
    with torch.no_grad():
        for conv, old in zip(convs, before, strict=True):
            conv.weight[:, :, :-1].lerp_(old, 1.0 - rate)


def _conv_whole(self: EasyAnimateCausalConv3d, hidden_states: Tensor) -> Tensor:
    if hidden_states.shape[2] == 1:
        # With replicate padding every tap sees the same frame: a 2-D convolution with their sum.
        image = F.conv2d(
            hidden_states[:, :, 0],
            self.weight.sum(dim=2),
            self.bias,
            stride=self.stride[1:],
            padding=self.padding[1:],
        )
        return image[:, :, None]
    padding = (0, 0, 0, 0, self.temporal_padding, 0)
    return nn.Conv3d.forward(self, F.pad(hidden_states, padding, mode="replicate"))


def _upsample_whole(self: EasyAnimateUpsampler3D, hidden_states: Tensor) -> Tensor:
    hidden_states = self.conv(F.interpolate(hidden_states, scale_factor=(1, 2, 2), mode="nearest"))
    if self.temporal_upsample and hidden_states.shape[2] > 1:
        rest = F.interpolate(hidden_states[:, :, 1:], scale_factor=(2, 1, 1), mode="nearest")
        hidden_states = torch.cat([hidden_states[:, :, :1], rest], dim=2)
    return hidden_states


@contextmanager
def whole_clip(vae: AutoencoderKLMagvit) -> Iterator[None]:
    """Run the VAE over all frames at once instead of frame by frame through its caches.

    The result equals the cached forward pass (with spatial group norm only), and training on short
    clips is several times faster.
    """
    if not vae.config.spatial_group_norm:
        raise ValueError(
            "whole_clip needs spatial_group_norm=True: a norm over time depends on the chunks"
        )
    changed: list[nn.Module] = []
    try:
        for module in vae.modules():
            forward: Any
            if isinstance(module, EasyAnimateCausalConv3d):
                forward = _conv_whole
            elif isinstance(module, EasyAnimateUpsampler3D):
                forward = _upsample_whole
            else:
                continue
            module.forward = forward.__get__(module)
            changed.append(module)
        yield
    finally:
        for module in changed:
            del module.forward


def vae_loss(
    vae: AutoencoderKLMagvit, frames: Tensor, generator: torch.Generator
) -> tuple[Tensor, dict[str, float]]:
    """Return the squared and absolute error plus a light KL term of whole clips.

    Args:
        vae: VAE inside `whole_clip`.
        frames: (b, f, 3, h, w) in [0, 1].
        generator: Random generator of the posterior's noise.

    Returns:
        The scalar loss and its parts (`psnr` in dB on the [0, 1] scale).
    """
    x = frames.transpose(1, 2) * 2.0 - 1.0
    moments = vae.quant_conv(vae.encoder(x))
    mean, log_variance = moments.chunk(2, dim=1)
    log_variance = log_variance.clamp(-30.0, 20.0)
    noise = torch.randn(mean.shape, generator=generator)
    z = mean + torch.exp(0.5 * log_variance) * noise
    decoded = vae.decoder(vae.post_quant_conv(z)).float()
    squared = F.mse_loss(decoded, x)
    absolute = F.l1_loss(decoded, x)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean()
    loss = squared + L1_WEIGHT * absolute + KL_WEIGHT * kl
    return loss, {"psnr": -10.0 * math.log10(squared.item() / 4.0), "kl": kl.item()}


def bfloat16_gradients_work() -> bool:
    """Return whether this CPU computes usable bfloat16 weight gradients of 3D convolutions.

    On CPUs with AMX oneDNN's are NaN or wrong (`findings/conv3d-bfloat16-gradient-amx.sh`), so the
    VAE is trained in float32 there.
    """
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return has_amx is None or not has_amx()
