"""Conditions as the model reads them: encoded once, kept on the CPU, used in every rollout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from base_model.errors import GeneratorError
from base_model.generator import Generator
from reward_tuning.errors import TuningError
from reward_tuning.inputs.condition_files import ConditionFiles
from reward_tuning.inputs.read_condition import ConditionPixels


@dataclass(frozen=True)
class EncodedCondition:
    """What one clip follows beside its text.

    Attributes:
        channels: `(17, 32 or 22, t, h/8, w/8)`, what lies behind the noisy latents; None is zero.
        start: `(16, t, h/8, w/8)`, latents of the video that sampling starts from; None is noise.
    """

    channels: Tensor | None = None
    start: Tensor | None = None


@torch.no_grad()
def encode(
    generator: Generator,
    files: ConditionFiles,
    asked: ConditionPixels,
    *,
    strength: float,
    noise_seed: int,
) -> EncodedCondition:
    """Encode what was read from a condition's files.

    Args:
        generator: Its VAE encodes.
        files: What was read, for errors.
        asked: From there.
        strength: Below 1, sampling starts from the video.
        noise_seed: Of the noise on kept pixels; another than the initial noise's.

    Returns:
        Tensors on the CPU.

    Raises:
        TuningError: The checkpoint does not take this, or its parts do not go together.
    """
    inputs = asked.inputs
    try:
        channels = generator.encode_condition(inputs, noise_seeds=[noise_seed])
        start = None
        if strength < 1.0:
            assert inputs.video is not None, "ConditionFiles.check asks for one"
            start = generator.encode(inputs.video)[0].cpu()
    except GeneratorError as error:
        raise TuningError(f"{files.told()}: {error}") from error
    return EncodedCondition(None if channels is None else channels[0].cpu(), start)


def stacked_channels(conditions: Sequence[EncodedCondition]) -> Tensor | None:
    """The channels of a batch, `(b, c, t, h/8, w/8)`; None where no clip has any.

    Args:
        conditions: One a clip, of one kind of checkpoint and size; zeros for those without.
    """
    some = next((one.channels for one in conditions if one.channels is not None), None)
    if some is None:
        return None
    zeros = torch.zeros_like(some)
    return torch.stack([zeros if one.channels is None else one.channels for one in conditions])


def stacked_starts(conditions: Sequence[EncodedCondition]) -> Tensor | None:
    """The latents that a batch starts from, `(b, 16, t, h/8, w/8)`; None where it is from noise.

    Args:
        conditions: One a clip; all have a start, or none (`ConditionFiles.check`).
    """
    starts = [one.start for one in conditions if one.start is not None]
    assert len(starts) in {0, len(conditions)}
    return torch.stack(starts) if starts else None
