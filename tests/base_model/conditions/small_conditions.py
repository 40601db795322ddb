"""Small clips, masks and texts for conditions, and what the published pipelines are given."""

import torch
from torch import Tensor

from base_model.conditions.inpainting import (
    KEPT_NOISE,
)
from base_model.generator import Generator, TextCondition

SIZE = (9, 32, 48)


NAMES = {
    "text-to-video": "sampling_7b_style",
    "inpaint": "transformer_inpaint_7b_style",
    "control": "transformer_control_7b_style",
    "camera": "transformer_camera_all_mmdit",
}


TEXT = torch.randn(1, 10, 48, generator=torch.Generator().manual_seed(0))


def clips(batch: int = 1, frames: int = SIZE[0], channels: int = 3, seed: int = 1) -> Tensor:
    """Random `(b, f, c, H, W)` in [0, 1], with some black pixels."""
    draw = torch.Generator().manual_seed(seed)
    frames_ = torch.rand(batch, frames, channels, *SIZE[1:], generator=draw)
    frames_[:, :, :, :5, :7] = 0
    return frames_


def text(batch: int = 1) -> TextCondition:
    return TextCondition(TEXT.expand(batch, -1, -1), -TEXT)


def half_mask(frames: int = SIZE[0]) -> Tensor:
    """Generates the right part, and a bit more of it in every frame."""
    mask = torch.zeros(1, frames, 1, *SIZE[1:])
    for i in range(frames):
        mask[:, i, :, :, 20 - 2 * i :] = 1
    return mask


def published_layout(frames: Tensor) -> Tensor:
    return frames.transpose(1, 2)


def published_noise(generator: Generator, seed: int) -> Tensor:
    """On kept pixels: what the pipeline's random generator gives after the initial latents."""
    draw = torch.Generator().manual_seed(seed)
    torch.randn(generator.latent_shape(1, *SIZE), generator=draw)
    return torch.randn(1, 3, *SIZE, generator=draw) * KEPT_NOISE
