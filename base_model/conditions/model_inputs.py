"""Condition channels, for both guidance branches and then for one model call."""

from __future__ import annotations

import torch
from torch import Tensor

from base_model.conditions.conditions import Condition, GuidedCondition, TextCondition
from base_model.core.kinds import KINDS, Kind
from base_model.errors import GeneratorError


def with_channels(text: TextCondition, channels: Tensor | None, kind: Kind) -> GuidedCondition:
    """Combine text states with condition channels, which both guidance branches share.

    Args:
        text: Text states of b samples.
        channels: Channels of b samples, or of 1 for all; None stands for zeros.
        kind: Kind of the checkpoint.

    Raises:
        GeneratorError: The numbers of samples differ.
    """
    extra: dict[str, Tensor] = {}
    if channels is not None:
        assert kind.field is not None
        batch = len(text.positive)
        if len(channels) not in {1, batch}:
            raise GeneratorError(
                f"Got text states for {batch} samples and a condition for {len(channels)}. "
                "Give one image or clip for each prompt, or one for all."
            )
        extra[kind.field] = channels.expand(batch, -1, -1, -1, -1)
    return GuidedCondition(Condition(text.positive, **extra), Condition(text.negative, **extra))


def model_channels(
    condition: Condition,
    kind: Kind,
    shape: tuple[int, ...],
    *,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """Return the condition channels of one model call as keyword arguments of the transformer.

    Args:
        condition: One guidance branch.
        kind: Kind of the checkpoint.
        shape: Shape of the latents, `(b, 16, t, h/8, w/8)`.
        device: Device of the transformer.
        dtype: Dtype of the transformer.

    Returns:
        Empty for a text-to-video checkpoint; else its field, zero where nothing is given.

    Raises:
        GeneratorError: The checkpoint does not take the condition, or the shapes differ.
    """
    for field in ("inpaint_latents", "control_latents"):
        if getattr(condition, field) is not None and kind.field != field:
            takers = " or ".join(
                f"{one.name} ({one.channels})" for one in KINDS.values() if one.field == field
            )
            raise GeneratorError(
                f"The condition has {field}, which a transformer with {kind.channels} input "
                f"channels does not take. Use a checkpoint that does: {takers}."
            )
    if kind.field is None:
        return {}
    wanted = (shape[0], kind.extra, *shape[2:])
    given = getattr(condition, kind.field)
    if given is None:
        return {kind.field: torch.zeros(wanted, device=device, dtype=dtype)}
    if given.shape[0] == 1:
        given = given.expand(wanted[0], -1, -1, -1, -1)
    if tuple(given.shape) != wanted:
        raise GeneratorError(
            f"The condition's {kind.field} have shape {tuple(given.shape)}; latents of shape "
            f"{tuple(shape)} and this transformer need {wanted}."
        )
    return {kind.field: given.to(device, dtype)}
