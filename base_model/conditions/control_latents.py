"""Encode control conditions to latent channels: a control clip or camera rays, and a reference."""

from typing import Any

import torch
from torch import Tensor

from base_model.core.family import FAMILY
from base_model.core.latent_grid import to_latent_grid
from base_model.errors import GeneratorError
from base_model.networks import magvit

RAY_SCALE = 6.0
"""Factor on the Plücker rays in the published camera model."""


def control_latents(
    vae: Any,
    control: Tensor | None,
    reference: Tensor | None,
    shape: tuple[int, int, int, int, int],
) -> Tensor:
    """Return the 32 channels of a control checkpoint.

    Args:
        vae: An `AutoencoderKLMagvit`.
        control: `(b, f, 3, H, W)` in [0, 1]; None leaves its 16 channels zero.
        reference: `(b, 3, H, W)` in [0, 1]; None leaves its 16 channels zero.
        shape: Shape of the latents, `(b, 16, t, h/8, w/8)`.

    Returns:
        `(b, 32, t, h/8, w/8)`, float32 (float64 for a float64 VAE), differentiable.

    Raises:
        GeneratorError: See `reference_latents`.
    """
    clip = _zeros(vae, shape) if control is None else magvit.encode(vae, control)
    return torch.cat([clip, reference_latents(vae, reference, shape)], dim=1)


def camera_latents(
    vae: Any,
    rays: Tensor | None,
    reference: Tensor | None,
    shape: tuple[int, int, int, int, int],
) -> Tensor:
    """Return the 22 channels of a camera checkpoint. The VAE does not encode the rays.

    Args:
        vae: An `AutoencoderKLMagvit`, for the reference.
        rays: `(b, 6, f, H, W)`; None leaves their channels zero, as in training for clips with an
            unknown camera.
        reference: `(b, 3, H, W)` in [0, 1]; None leaves its 16 channels zero.
        shape: Shape of the latents, `(b, 16, t, h/8, w/8)`.

    Returns:
        `(b, 22, t, h/8, w/8)`, float32 (float64 for a float64 VAE), differentiable.

    Raises:
        GeneratorError: See `reference_latents`.
    """
    batch, _, t, h, w = shape
    image = reference_latents(vae, reference, shape)
    if rays is None:
        grid = image.new_zeros(batch, FAMILY.camera_channels, t, h, w)
    else:
        grid = to_latent_grid(rays.to(image), (t, h, w)) * RAY_SCALE
    return torch.cat([grid, image], dim=1)


def reference_latents(
    vae: Any, reference: Tensor | None, shape: tuple[int, int, int, int, int]
) -> Tensor:
    """Return the reference image's latent in the first latent frame, and zeros after it.

    Args:
        vae: An `AutoencoderKLMagvit`.
        reference: `(b, 3, H, W)` in [0, 1]; None is all zero.
        shape: Shape of the latents, `(b, 16, t, h/8, w/8)`.

    Returns:
        `(b, 16, t, h/8, w/8)`.

    Raises:
        GeneratorError: The clip is a single frame, for which the published code drops the
            reference.
    """
    if reference is None:
        return _zeros(vae, shape)
    if shape[2] == 1:
        raise GeneratorError(
            "A single frame takes no reference image (the published code drops it). Request 5 "
            "frames or more, or omit the reference."
        )
    first = magvit.encode(vae, reference[:, None])
    return torch.cat([first, first.new_zeros(*first.shape[:2], shape[2] - 1, *shape[3:])], dim=2)


def _zeros(vae: Any, shape: tuple[int, ...]) -> Tensor:
    weight = vae.quant_conv.weight
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return torch.zeros(shape, device=weight.device, dtype=dtype)
