"""Encode the pixels of a condition to the channels that are concatenated to the noisy latents."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from base_model.conditions.conditions import ConditionInputs
from base_model.conditions.control_latents import camera_latents, control_latents
from base_model.conditions.inpainting import inpaint_latents, kept_clip, kept_noise
from base_model.core.kinds import Kind
from base_model.errors import GeneratorError


def condition_latents(
    vae: Any,
    kind: Kind,
    inputs: ConditionInputs,
    shape: tuple[int, int, int, int, int],
    *,
    noise_seeds: Sequence[int] | None,
    noise_strength: float,
) -> Tensor | None:
    """Encode inputs for `base_model.generator.Generator.encode_condition`.

    Args:
        vae: An `AutoencoderKLMagvit`.
        kind: Kind of the checkpoint, which takes the inputs.
        inputs: At least one input.
        shape: Shape of the latents, `(b, 16, t, h/8, w/8)`.
        noise_seeds: One seed per sample, for the noise on kept pixels; None adds no noise.
        noise_strength: Standard deviation of the noise on pixels in [-1, 1].

    Returns:
        `(b, 17, 32 or 22, t, h/8, w/8)`; None where the inputs need no channel.

    Raises:
        GeneratorError: The inputs exclude each other.
    """
    if kind.field is None:
        return None
    if kind.name == "camera":
        return camera_latents(vae, inputs.camera, inputs.reference, shape)
    if kind.name == "control":
        return control_latents(vae, inputs.control, inputs.reference, shape)
    batch, frames, height, width = size = inputs.size()
    kept = kept_clip(inputs, size)
    if kept is None:
        return None
    noise = None
    if noise_seeds is not None:
        if len(noise_seeds) != batch:
            raise GeneratorError(
                f"Got {len(noise_seeds)} noise seeds for the kept pixels of {batch} samples. "
                "Give one seed for each sample."
            )
        noise = kept_noise(noise_seeds, frames, height, width, noise_strength)
    clip, mask = (part.to(vae.quant_conv.weight.device) for part in kept)
    return inpaint_latents(vae, clip, mask, noise)
