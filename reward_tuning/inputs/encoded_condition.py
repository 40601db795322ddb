"""Conditions as latent channels: encoded once, kept on the CPU, used in every rollout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from base_model.errors import GeneratorError
from base_model.generator import Generator
from reward_tuning.errors import TuningError
from reward_tuning.inputs.condition_files import ConditionFiles
from reward_tuning.inputs.condition_pixels import ConditionPixels


@dataclass(frozen=True)
class EncodedCondition:
    """The condition of one clip besides its text.

    Attributes:
        channels: Channels after the noisy latents, `(17, 32 or 22, t, h/8, w/8)`; None for zeros.
        start: Latents `(16, t, h/8, w/8)` of the video that sampling starts from; None for noise.
    """

    channels: Tensor | None = None
    start: Tensor | None = None


@torch.no_grad()
def encode_condition(
    generator: Generator,
    files: ConditionFiles,
    pixels: ConditionPixels,
    *,
    strength: float,
    noise_seed: int,
) -> EncodedCondition:
    """Encode a condition with the generator's VAE.

    Args:
        generator: Generator whose VAE encodes.
        files: Files of the condition, for messages.
        pixels: Content of these files.
        strength: Fraction of the steps that run; below 1, sampling starts from the video.
        noise_seed: Seed of the noise on kept pixels; must differ from that of the initial noise.

    Returns:
        The encoded condition, on the CPU.

    Raises:
        TuningError: The checkpoint does not take this condition, or its parts do not fit.
    """
    inputs = pixels.inputs
    try:
        channels = generator.encode_condition(inputs, noise_seeds=[noise_seed])
        start = None
        if strength < 1.0:
            assert inputs.video is not None, "ConditionFiles.check requires one"
            start = generator.encode(inputs.video)[0].cpu()
    except GeneratorError as error:
        raise TuningError(f"{files.described()}: {error}") from error
    return EncodedCondition(None if channels is None else channels[0].cpu(), start)


def stacked_channels(conditions: Sequence[EncodedCondition]) -> Tensor | None:
    """Return the channels of a batch, `(b, c, t, h/8, w/8)`; None if no clip has any.

    Args:
        conditions: Condition of each clip, all for one kind of checkpoint and one size. Clips
            without channels get zeros.
    """
    some = next((one.channels for one in conditions if one.channels is not None), None)
    if some is None:
        return None
    zeros = torch.zeros_like(some)
    return torch.stack([zeros if one.channels is None else one.channels for one in conditions])


def stacked_starts(conditions: Sequence[EncodedCondition]) -> Tensor | None:
    """Return the latents that a batch starts from, `(b, 16, t, h/8, w/8)`; None for noise.

    Args:
        conditions: Condition of each clip; all have a start or none (`ConditionFiles.check`).
    """
    starts = [one.start for one in conditions if one.start is not None]
    assert len(starts) in {0, len(conditions)}
    return torch.stack(starts) if starts else None
