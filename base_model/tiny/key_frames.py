"""Latents of clips under a frame-wise encoder."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKLMagvit
from torch import Tensor

from base_model.core.family import FAMILY
from base_model.training.vae import whole_clip


@torch.no_grad()
def encode_key_frames(vae: AutoencoderKLMagvit, clips: Tensor) -> Tensor:
    """Encode every fourth frame of clips on its own.

    The result equals `magvit.encode` without the scale while the encoder's past taps are zero, as
    they are here, in a ninth of the time.

    Args:
        vae: VAE after the stage `vae-images`.
        clips: (b, 4k + 1, 3, H, W) in [0, 1].

    Returns:
        (b, 16, k + 1, H/8, W/8), unscaled.
    """
    frames = clips[:, :: FAMILY.time_stride]
    with whole_clip(vae):
        images = frames.flatten(0, 1)[:, :, None] * 2.0 - 1.0
        mean = vae.quant_conv(vae.encoder(images)).chunk(2, dim=1)[0]
    return mean[:, :, 0].unflatten(0, frames.shape[:2]).transpose(1, 2).contiguous()
