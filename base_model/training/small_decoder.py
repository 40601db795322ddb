"""Distillation of a small decoder: the true decoder's frames, and the gradient through it.

Training with a reward needs the vector-Jacobian product of the decoder more than its frames. Each
lesson therefore holds a cotangent of the frames and what the true decoder makes of it: the gradient
of the latents. The student is trained on both, as in Sobolev training (Czarnecki et al. 2017,
arXiv:1706.04859), whose random projections are here cotangents of judges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from base_model.core.family import FAMILY
from base_model.networks.magvit import decode, frame_count
from base_model.networks.magvit_clip import Checkpointing
from base_model.networks.small_decoder import SmallDecoder, latent_group

CotangentFn = Callable[[Tensor, int], Tensor]
"""(frames `(b, n, 3, H, W)` of a latent, position of the first in the clip) -> their cotangent."""

GRADIENT_WEIGHT = 0.3
"""Weight of the relative squared error of the gradients; that of the frames' is FRAMES_WEIGHT."""

FRAMES_WEIGHT = 10.0

WORST = 4.0
"""Relative error of a gradient from which on it counts no more; a student of zeros has 1."""


def lesson(
    vae: Any,
    latents: Tensor,
    i: int,
    cotangent: CotangentFn,
    *,
    past: int,
    checkpointing: Checkpointing = False,
) -> dict[str, Tensor]:
    """Ask the true decoder about the frames of one latent.

    Args:
        vae: An `AutoencoderKLMagvit`.
        latents: `(b, 16, t, h/8, w/8)`, scaled.
        i: Index of the latent.
        cotangent: Function that weighs the frames, such as a judge's gradient.
        past: Latents before it that the student sees.
        checkpointing: What the backward pass computes again (`base_model.networks.magvit.decode`).

    Returns:
        One row for each clip, on the CPU: `group` `(b, past + 1, 16, h/8, w/8)`; `frames` and
        `cotangent` `(b, 4, 3, H, W)` fp16, with zeros before the one frame of a clip's first
        latent; `gradient` `(b, 2, 16, h/8, w/8)`, of the latent before and of the latent itself;
        `first` `(b,)`, 1 for a clip's first latent.
    """
    before = max(i - 1, 0)
    start = 0 if before == 0 else frame_count(before)
    own = 1 if i == 0 else FAMILY.time_stride
    x = latents.detach().requires_grad_()
    window = slice(start, frame_count(i + 1))
    shown = decode(vae, x, window, detach_context=True, checkpointing=checkpointing)[:, -own:]
    weights = cotangent(shown.detach(), frame_count(i + 1) - own).half().float()
    (gradient,) = torch.autograd.grad(shown, x, weights.to(shown))
    missing = (0, 0, 0, 0, 0, 0, FAMILY.time_stride - own, 0)
    rows = {
        "group": latent_group(latents, i, past).float(),
        "frames": F.pad(shown.detach(), missing).half(),
        "cotangent": F.pad(weights, missing).half(),
        "gradient": latent_group(gradient, i, 1).float(),
        "first": torch.full((len(latents),), int(i == 0)),
    }
    return {name: tensor.cpu().contiguous() for name, tensor in rows.items()}


def distillation_loss(
    decoder: SmallDecoder, rows: Mapping[str, Tensor]
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of a batch of lessons.

    A pixel that the true decoder clamps tells only that the value lies beyond: a student that is
    beyond, too, makes no error there.

    Args:
        decoder: The student.
        rows: Rows of `lesson`, together on the decoder's device.

    Returns:
        The scalar loss, and `psnr` in dB and the mean `cosine` of the gradients.
    """
    groups = rows["group"].detach().requires_grad_()
    wanted, weights = rows["frames"].float(), rows["cotangent"].float()
    first = rows["first"].bool()
    raw = decoder(groups)
    clamped = raw.clamp(0, 1)

    counts = torch.ones_like(raw)
    counts[first, :-1] = 0.0
    beyond = ((wanted <= 0) & (raw < 0)) | ((wanted >= 1) & (raw > 1))
    error = torch.where(beyond, 0.0, raw - wanted) * counts
    squared, absolute = (of.sum() / counts.sum() for of in (error.square(), error.abs()))

    (found,) = torch.autograd.grad((clamped * weights).sum(), groups, create_graph=True)
    # Every place of a clip's first group is its first latent.
    own = torch.where(first[:, None, None, None], found.sum(dim=1), found[:, -1])
    before = found[~first, -2]
    size = _squared_norm(rows["gradient"][:, -1]).clamp_min(1e-20)
    off = _squared_norm(own - rows["gradient"][:, -1]) / size
    off_before = _squared_norm(before - rows["gradient"][~first, 0]) / size[~first]
    missed = (off.clamp(max=WORST).sum() + off_before.clamp(max=WORST).sum()) / len(first)

    loss = FRAMES_WEIGHT * squared + absolute + GRADIENT_WEIGHT * missed
    cosine = F.cosine_similarity(own.flatten(1), rows["gradient"][:, -1].flatten(1), dim=1)
    return loss, {
        "psnr": -10.0 * math.log10(max(squared.item(), 1e-10)),
        "cosine": cosine.mean().item(),
    }


def _squared_norm(tensor: Tensor) -> Tensor:
    return tensor.square().flatten(1).sum(dim=1)
