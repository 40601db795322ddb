"""What a sample is trained without, now and then, so that guidance and missing inputs work."""

from __future__ import annotations

import torch
from torch import Tensor

from base_model.core.family import FAMILY
from base_model.core.kinds import Kind

CONTROL_DROPOUT = 0.2
REFERENCE_DROPOUT = 0.2
"""Published shares of samples without control clip and without reference image."""


def draw_dropped(count: int, share: float, generator: torch.Generator) -> Tensor:
    """Which samples are dropped: `(count,)` bool, each with probability `share`."""
    return torch.rand(count, generator=generator) < share


def without_text(text: Tensor, empty: Tensor, dropped: Tensor) -> Tensor:
    """Text states with the empty prompt's where dropped.

    Args:
        text: `(b, l, d)`.
        empty: `(l, d)`, of the prompt "".
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
    """Condition channels, with control clip and reference image zeroed sample by sample.

    Camera rays are never dropped: a clip whose camera is not known has zeros there already.

    Args:
        latents: `(b, 32 or 22, t, h/8, w/8)`: control or rays first, then the reference.
        kind: Of the checkpoint, `control` or `camera`.
        generator: Of the two draws.
        control: Share of samples without control clip.
        reference: Share of samples without reference image.
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
