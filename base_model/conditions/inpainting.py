"""Inpaint conditions: the pixels of a clip that are kept, as the 17 channels of the model.

Image to video, masked edits and the continuation of a clip are all a clip and a mask.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from base_model.conditions.conditions import ConditionInputs
from base_model.core.latent_grid import to_latent_grid
from base_model.errors import GeneratorError
from base_model.networks import magvit

KEPT_NOISE = 0.0563
"""Standard deviation of the published pipeline's noise on kept pixels, which are in [-1, 1]."""


def kept_clip(
    inputs: ConditionInputs, size: tuple[int, int, int, int]
) -> tuple[Tensor, Tensor] | None:
    """Return the clip and the mask for images, or for a video with its mask.

    Args:
        inputs: Inputs of an inpaint checkpoint.
        size: Batch, frames, height and width.

    Returns:
        `(b, f, 3, H, W)` in [0, 1] and `(b, f, 1, H, W)`, 1 for pixels to generate; None if nothing
        is kept.

    Raises:
        GeneratorError: There is a mask without a video, or a video together with an image.
    """
    batch, frames, height, width = size
    if inputs.video is not None:
        also_given = [name for name in ("image", "end_image") if name in inputs.given]
        if also_given:
            raise GeneratorError(
                f"The condition has a video and the {also_given[0].replace('_', ' ')}, which both "
                "define that frame. Put the image into the video and let the mask keep it."
            )
        if inputs.mask is None:
            return None
        return inputs.video, inputs.mask.expand(batch, frames, 1, height, width)
    if inputs.mask is not None:
        raise GeneratorError("The condition has a mask but no video. Give the video of the mask.")
    images = {0: inputs.image, frames - 1: inputs.end_image}
    if frames == 1 and inputs.end_image is not None:
        raise GeneratorError("A clip of 1 frame has no end image. Give an image, or more frames.")
    some = next((image for image in images.values() if image is not None), None)
    if some is None:
        return None
    clip = some.new_zeros(batch, frames, 3, height, width)
    mask = some.new_ones(batch, frames, 1, height, width)
    for place, image in images.items():
        if image is not None:
            clip[:, place] = image
            mask[:, place] = 0
    return clip, mask


def extended(clip: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Extend a clip by frames to generate.

    Args:
        clip: `(b, k, 3, H, W)` in [0, 1], k < `frames`. With k = 4j + 1 the boundary lies between
            two latents; otherwise the latent at the boundary is only partly kept.
        frames: Frames of the longer clip.

    Returns:
        The clip `(b, frames, 3, H, W)` with black frames at the end, and its mask
        `(b, frames, 1, H, W)`, 1 for these frames and 0 before.

    Raises:
        GeneratorError: `clip` is not shorter than the result.
    """
    batch, kept, _, height, width = clip.shape
    if not 1 <= kept < frames:
        raise GeneratorError(
            f"A clip of {kept} frames cannot be extended to {frames}: at least 1 frame must be "
            f"given and 1 left to generate. Keep at most {max(frames - 1, 1)} frames."
        )
    rest = clip.new_zeros(batch, frames - kept, 3, height, width)
    mask = clip.new_ones(batch, frames, 1, height, width)
    mask[:, :kept] = 0
    return torch.cat([clip, rest], dim=1), mask


def kept_noise(
    seeds: Sequence[int], frames: int, height: int, width: int, strength: float = KEPT_NOISE
) -> Tensor:
    """Draw noise for the kept pixels, with one CPU random generator per sample.

    Args:
        seeds: b seeds, different from those of the initial noise: equal seeds give equal numbers.
        frames: Frames of the clip.
        height: Height in pixels.
        width: Width in pixels.
        strength: Standard deviation.

    Returns:
        `(b, 3, f, H, W)` float32.
    """
    samples = [
        torch.randn(3, frames, height, width, generator=torch.Generator("cpu").manual_seed(seed))
        for seed in seeds
    ]
    return torch.stack(samples) * strength


def inpaint_latents(
    vae: Any,
    clip: Tensor,
    mask: Tensor,
    noise: Tensor | None = None,
    *,
    zeroed: Tensor | None = None,
) -> Tensor:
    """Return the 17 channels of an inpaint checkpoint: the mask, then the masked clip's latents.

    The mask channel is the VAE's scaling factor for kept pixels and 0 for generated ones, because
    the published code scales mask and latents together. A sample that keeps nothing is zero in all
    17 channels, which is the published text-to-video mode.

    Args:
        vae: An `AutoencoderKLMagvit`.
        clip: `(b, f, 3, H, W)` in [0, 1], f = 4k + 1.
        mask: `(b, f, 1, H, W)`: generate from 0.5 on, keep below.
        noise: `(b, 3, f, H, W)`, added to kept pixels except black ones (-1 marks unknown pixels);
            None adds no noise.
        zeroed: `(b,)` bool, true for samples that become zero if they keep nothing. The published
            training leaves one in ten as the latents of a black clip; None zeroes all.

    Returns:
        `(b, 17, t, h/8, w/8)`, float32 (float64 for a float64 VAE), differentiable in `clip`.
    """
    video, generate = masked_video(clip, mask, noise)
    masked = magvit.encode_video(vae, video)
    return inpaint_channels(masked, generate, vae.config.scaling_factor, zeroed=zeroed)


def masked_video(clip: Tensor, mask: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Black out the pixels to generate.

    Args:
        clip: `(b, f, 3, H, W)` in [0, 1].
        mask: `(b, f, 1, H, W)`: generate from 0.5 on, keep below.
        noise: `(b, 3, f, H, W)`, added to kept pixels that are not black.

    Returns:
        The clip `(b, 3, f, H, W)` in [-1, 1], and `(b, 1, f, H, W)` bool, true for pixels to
        generate.
    """
    generate = (mask >= 0.5).transpose(1, 2)
    video = torch.where(generate, -1.0, clip.transpose(1, 2) * 2 - 1)
    if noise is not None:
        video = torch.where(video == -1, video, video + noise.to(video))
    return video, generate


def inpaint_channels(
    masked: Tensor, generate: Tensor, scaling_factor: float, *, zeroed: Tensor | None = None
) -> Tensor:
    """Return the 17 channels for the latents of a masked clip.

    Args:
        masked: `(b, 16, t, h/8, w/8)`, scaled latents of the masked clip.
        generate: `(b, 1, f, H, W)` bool.
        scaling_factor: Scaling factor of the VAE.
        zeroed: See `inpaint_latents`.

    Returns:
        `(b, 17, t, h/8, w/8)`.
    """
    t, h, w = masked.shape[2:]
    keep = to_latent_grid((~generate).to(masked), (t, h, w)) * scaling_factor
    some = (~generate).flatten(1).any(dim=1)
    if zeroed is not None:
        some = some | ~zeroed.to(some.device)
    return torch.cat([keep, masked], dim=1) * some.to(masked)[:, None, None, None, None]
