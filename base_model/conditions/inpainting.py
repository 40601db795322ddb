"""Inpaint conditions: which pixels of a clip are kept, as the 17 channels the model reads.

Image to video, masked edits and the prolongation of a clip are one thing here: a clip and a mask.
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
"""Deviation of the noise that the published pipeline adds to kept pixels, which are in [-1, 1]."""


def kept_clip(
    inputs: ConditionInputs, size: tuple[int, int, int, int]
) -> tuple[Tensor, Tensor] | None:
    """The clip and the mask that images, or a video with its mask, stand for.

    Args:
        inputs: Of an inpaint checkpoint.
        size: Batch, frames, height and width.

    Returns:
        `(b, f, 3, H, W)` in [0, 1] and `(b, f, 1, H, W)`, 1 where it is to be generated; None
        where nothing is kept.

    Raises:
        GeneratorError: When there is a mask and no video, or a video beside an image.
    """
    batch, frames, height, width = size
    if inputs.video is not None:
        beside = [name for name in ("image", "end_image") if name in inputs.given]
        if beside:
            raise GeneratorError(
                f"The condition has a video and the {beside[0].replace('_', ' ')}: both say what "
                "that frame is. Put the image into the video and let the mask keep it."
            )
        if inputs.mask is None:
            return None
        return inputs.video, inputs.mask.expand(batch, frames, 1, height, width)
    if inputs.mask is not None:
        raise GeneratorError("The condition has a mask and no video to keep anything of. Give one.")
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


def prolonged(clip: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """A longer clip of which the first frames are given.

    Args:
        clip: `(b, k, 3, H, W)` in [0, 1], k < `frames`. With k = 4j + 1 the boundary is one of
            the latents'; otherwise the latent it lies in is only in part kept.
        frames: Of the longer clip.

    Returns:
        The clip `(b, frames, 3, H, W)`, black where nothing is known, and its mask
        `(b, frames, 1, H, W)`, 1 there and 0 before.

    Raises:
        GeneratorError: When `clip` is not shorter than the result.
    """
    batch, kept, _, height, width = clip.shape
    if not 1 <= kept < frames:
        raise GeneratorError(
            f"A clip of {kept} frames cannot be prolonged to {frames}: at least 1 frame must be "
            f"given and 1 left to generate. Keep {max(frames - 1, 1)} frames at most."
        )
    rest = clip.new_zeros(batch, frames - kept, 3, height, width)
    mask = clip.new_ones(batch, frames, 1, height, width)
    mask[:, :kept] = 0
    return torch.cat([clip, rest], dim=1), mask


def kept_noise(
    seeds: Sequence[int], frames: int, height: int, width: int, strength: float = KEPT_NOISE
) -> Tensor:
    """Noise for the kept pixels, one CPU random generator per sample.

    Args:
        seeds: b seeds; others than those of the initial noise, which would be the same numbers.
        frames: Of the clip.
        height: Pixels.
        width: Pixels.
        strength: Deviation.

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
    """The 17 channels behind the noisy latents: mask, then the masked clip's latents.

    The mask channel is the VAE's scaling factor where a pixel is kept and 0 where it is generated,
    for the published code scales mask and latents together. A sample of which nothing is kept is
    zero in all 17 channels, the published text-to-video mode.

    Args:
        vae: An `AutoencoderKLMagvit`.
        clip: `(b, f, 3, H, W)` in [0, 1], f = 4k + 1.
        mask: `(b, f, 1, H, W)`: from 0.5 on generate, below keep.
        noise: `(b, 3, f, H, W)`, added to kept pixels but black ones (-1 marks what is unknown);
            None adds nothing.
        zeroed: `(b,)` bool: which of the samples of which nothing is kept are zero. The published
            training leaves one in ten as the latents of a black clip; None zeroes all.

    Returns:
        `(b, 17, t, h/8, w/8)`, float32 (float64 for a float64 VAE), differentiable in `clip`.
    """
    video, generate = masked_video(clip, mask, noise)
    masked = magvit.encode_video(vae, video)
    return inpaint_channels(masked, generate, vae.config.scaling_factor, zeroed=zeroed)


def masked_video(clip: Tensor, mask: Tensor, noise: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The clip with what is to be generated blacked out, and where that is.

    Args:
        clip: `(b, f, 3, H, W)` in [0, 1].
        mask: `(b, f, 1, H, W)`: from 0.5 on generate, below keep.
        noise: `(b, 3, f, H, W)`, added to kept pixels that are not black.

    Returns:
        `(b, 3, f, H, W)` in [-1, 1], and `(b, 1, f, H, W)` bool, True where to generate.
    """
    generate = (mask >= 0.5).transpose(1, 2)
    video = torch.where(generate, -1.0, clip.transpose(1, 2) * 2 - 1)
    if noise is not None:
        video = torch.where(video == -1, video, video + noise.to(video))
    return video, generate


def inpaint_channels(
    masked: Tensor, generate: Tensor, scaling_factor: float, *, zeroed: Tensor | None = None
) -> Tensor:
    """The 17 channels of a masked clip that has been encoded.

    Args:
        masked: `(b, 16, t, h/8, w/8)`, scaled latents of the masked clip.
        generate: `(b, 1, f, H, W)` bool.
        scaling_factor: Of the VAE.
        zeroed: As in `inpaint_latents`.

    Returns:
        `(b, 17, t, h/8, w/8)`.
    """
    t, h, w = masked.shape[2:]
    keep = to_latent_grid((~generate).to(masked), (t, h, w)) * scaling_factor
    some = (~generate).flatten(1).any(dim=1)
    if zeroed is not None:
        some = some | ~zeroed.to(some.device)
    return torch.cat([keep, masked], dim=1) * some.to(masked)[:, None, None, None, None]
