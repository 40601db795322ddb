"""Dropout of text and conditions in training, for guidance and for missing inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from base_model.core.family import FAMILY
from base_model.core.kinds import Kind

CONTROL_DROPOUT = 0.2
REFERENCE_DROPOUT = 0.2
"""Published shares of samples without a control clip and without a reference image."""


def draw_dropped(count: int, share: float, generator: torch.Generator) -> Tensor:
    """Draw the samples to drop: `(count,)` bool, each true with probability `share`."""
    return torch.rand(count, generator=generator) < share


def without_text(text: Tensor, empty: Tensor, dropped: Tensor) -> Tensor:
    """Replace the text states of dropped samples by those of the empty prompt.

    Args:
        text: `(b, l, d)`.
        empty: `(l, d)`, states of the prompt "".
        dropped: `(b,)` bool.
    """
    return torch.where(dropped[:, None, None].to(text.device), empty.to(text), text)


def without_control(
    latents: Tensor,
    kind: Kind,
    generator: torch.Generator,
    *,
    control: float = CONTROL_DROPOUT,
    reference: float = REFERENCE_DROPOUT,
) -> Tensor:
    """Zero the control clip and the reference image of some samples.

    Camera rays are never dropped: clips with an unknown camera have zero rays already.

    Args:
        latents: `(b, 32 or 22, t, h/8, w/8)`: control or rays first, then the reference.
        kind: Kind of the checkpoint, `control` or `camera`.
        generator: Random generator.
        control: Share of samples without a control clip.
        reference: Share of samples without a reference image.
    """
    split = latents.shape[1] - FAMILY.latent_channels  # the reference image is last
    first, second = latents[:, :split], latents[:, split:]
    no_control = draw_dropped(len(latents), control, generator)
    no_reference = draw_dropped(len(latents), reference, generator)
    if kind.name == "control":
        first = first * _kept(no_control, first)
    return torch.cat([first, second * _kept(no_reference, second)], dim=1)


def _kept(dropped: Tensor, like: Tensor) -> Tensor:
    return (~dropped).to(like)[:, None, None, None, None]
