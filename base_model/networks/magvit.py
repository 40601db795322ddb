"""The video VAE: encode, and a decode that is differentiable in flat memory.

diffusers' `AutoencoderKLMagvit` keeps the past of its causal convolutions as hidden state on the
modules. Its own gradient checkpointing recomputes with the wrong state, an exception leaves stale
state that silently corrupts the next call, and batch slicing crashes. Here the state is an explicit
input and output of one function per latent frame of the decoder, and the encoder's modules hold
none between calls.

n latent frames decode to `4 (n - 1) + 1` frames of video. The order is causal: the first k latents
alone give the first `4 (k - 1) + 1` frames.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_magvit import (
    EasyAnimateCausalConv3d,
    EasyAnimateUpsampler3D,
)
from torch import Tensor

from base_model.core.family import FAMILY
from base_model.errors import GeneratorError
from base_model.networks.magvit_clip import Checkpointing, ClipDecoding


def frame_count(latent_frames: int, ratio: int = FAMILY.time_stride) -> int:
    """Return the number of video frames that `latent_frames` latent frames decode to."""
    return ratio * (latent_frames - 1) + 1


def latent_count(frames: int, ratio: int = FAMILY.time_stride) -> int:
    """Return the number of latent frames that the first `frames` frames of a clip need."""
    return (frames - 1 + ratio - 1) // ratio + 1


def decode(
    vae: Any,
    latents: Tensor,
    frames: slice | None = None,
    *,
    detach_context: bool = False,
    checkpointing: Checkpointing = True,
) -> Tensor:
    """Decode scaled latents to frames in [0, 1].

    The frames are `clamp(v / 2 + 0.5, 0, 1)` of the decoder's output v, as in the published reward
    script; the gradient of a clamped pixel is 0.

    Args:
        vae: An `AutoencoderKLMagvit`.
        latents: `(b, 16, t, h/8, w/8)`, from the sampler (multiplied by the scaling factor).
        frames: Frames to decode, a slice over `range(4 (t - 1) + 1)` with step 1; None decodes
            all. Only the latents up to the last of them are decoded.
        detach_context: Decode the latents before the first of these frames without gradient. Memory
            and backward pass then depend on the window alone, not on its place in the clip.
        checkpointing: What the backward pass computes again, with the same values to the bit. True:
            each latent frame, and in it the norms and activations once more; what grows with the
            clip are two input frames per causal convolution and latent frame. "segments": these
            too, for more than half of the latent frames, so that of n only about `sqrt(2 n)` are
            alive. False: nothing; all activations are kept.

    Returns:
        `(b, f, 3, H, W)` in [0, 1], float32 (float64 for a float64 VAE), differentiable.

    Raises:
        GeneratorError: The slice is empty or has a step other than 1.
    """
    weight = vae.post_quant_conv.weight
    # Divide before the cast: the state is float32 whatever the VAE's dtype is.
    z = (latents / vae.config.scaling_factor).to(weight.device, weight.dtype)
    video = decode_video(vae, z, frames, detach_context=detach_context, checkpointing=checkpointing)
    video = video.to(torch.promote_types(video.dtype, torch.float32))
    return (video / 2 + 0.5).clamp(0, 1).transpose(1, 2)


def decode_video(
    vae: Any,
    z: Tensor,
    frames: slice | None = None,
    *,
    detach_context: bool = False,
    checkpointing: Checkpointing = True,
    around_latent: Callable[[int], AbstractContextManager[None]] | None = None,
) -> Tensor:
    """Decode unscaled latents to video, latent frame by latent frame.

    Args:
        vae: An `AutoencoderKLMagvit`.
        z: `(b, 16, t, h/8, w/8)` in the VAE's dtype, unscaled.
        frames: See `decode`.
        detach_context: See `decode`.
        checkpointing: See `decode`.
        around_latent: Function from the index of a latent frame to a context, which is entered
            around each norm of that frame and again when the backward pass repeats it.

    Returns:
        `(b, 3, f, H, W)`, roughly in [-1, 1], not clamped, dtype of `z`.

    Raises:
        GeneratorError: The slice is empty or has a step other than 1.
    """
    ratio = vae.temporal_compression_ratio
    start, stop = frame_window(frames, frame_count(z.shape[2], ratio))
    z = vae.post_quant_conv(z[:, :, : latent_count(stop, ratio)])
    decoder = vae.decoder
    if not (
        torch.is_grad_enabled()
        and (z.requires_grad or any(p.requires_grad for p in decoder.parameters()))
    ):
        checkpointing = False
    clip = ClipDecoding(decoder, (start, stop), ratio, around_latent)
    context = latent_count(start + 1, ratio) - 1 if detach_context else 0
    return clip(z, context=context, checkpointing=checkpointing)


def encode(vae: Any, frames: Tensor) -> Tensor:
    """Encode frames in [0, 1] to scaled latents: the posterior's mode times the scaling factor.

    Args:
        vae: An `AutoencoderKLMagvit`.
        frames: `(b, f, 3, H, W)` in [0, 1], f = 4k + 1, H and W multiples of 8.

    Returns:
        `(b, 16, (f - 1)/4 + 1, H/8, W/8)`, float32 (float64 for a float64 VAE).

    Raises:
        GeneratorError: The number of frames or the size is none of these.
    """
    return encode_video(vae, frames.transpose(1, 2) * 2 - 1)


def encode_video(vae: Any, video: Tensor) -> Tensor:
    """Encode a video in the network's own layout and range; see `encode`.

    Args:
        vae: An `AutoencoderKLMagvit`.
        video: `(b, 3, f, H, W)`, roughly in [-1, 1], f = 4k + 1, H and W multiples of 8.

    Returns:
        `(b, 16, (f - 1)/4 + 1, H/8, W/8)`, float32 (float64 for a float64 VAE).

    Raises:
        GeneratorError: The number of frames or the size is none of these.
    """
    weight = vae.quant_conv.weight
    mode = encode_moments(vae, video.to(weight.device, weight.dtype)).chunk(2, dim=1)[0]
    return mode.to(torch.promote_types(mode.dtype, torch.float32)) * vae.config.scaling_factor


def encode_moments(vae: Any, video: Tensor) -> Tensor:
    """Return the posterior of a video: mean and log-variance, unscaled.

    Args:
        vae: An `AutoencoderKLMagvit`.
        video: `(b, 3, f, H, W)` in [-1, 1] in the VAE's dtype, f = 4k + 1.

    Returns:
        `(b, 32, t, H/8, W/8)`: the mean, then the log-variance, half of the channels each.

    Raises:
        GeneratorError: The number of frames or the size is none of these.
    """
    space, ratio = vae.spatial_compression_ratio, vae.temporal_compression_ratio
    count, height, width = video.shape[2:]
    if count < 1 or (count - 1) % ratio:
        raise GeneratorError(
            f"The VAE encodes {ratio}k + 1 frames (1, {ratio + 1}, {2 * ratio + 1}, ...), got "
            f"{count}. Drop or add frames."
        )
    if height % space or width % space:
        raise GeneratorError(
            f"The VAE encodes heights and widths that are multiples of {space}, got "
            f"{height} x {width}. Resize or crop the clip."
        )
    clear_caches(vae)
    try:
        pieces = [vae.encoder(video[:, :, :1])]
        for first in range(1, count, ratio):
            pieces.append(vae.encoder(video[:, :, first : first + ratio]))
        return vae.quant_conv(torch.cat(pieces, dim=2))
    finally:
        clear_caches(vae)


def clear_caches(module: Any) -> None:
    """Clear every causal cache in `module`: the VAE, its encoder or its decoder."""
    for child in module.modules():
        if isinstance(child, EasyAnimateCausalConv3d | EasyAnimateUpsampler3D):
            child.prev_features = None


def frame_window(frames: slice | None, total: int) -> tuple[int, int]:
    """Return first and end of the frames to decode, of `total`.

    Raises:
        GeneratorError: The slice is empty or has a step other than 1.
    """
    start, stop, step = (frames or slice(None)).indices(total)
    if step != 1 or stop <= start:
        raise GeneratorError(
            f"The frames to decode must be a non-empty slice with step 1 of the clip's {total} "
            f"frames, got {frames}. Give for example slice(0, 1) for the first frame."
        )
    return start, stop
