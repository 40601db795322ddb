"""Sharpness of a reward: how much of a clip's score goes with changes that nobody sees.

A judge that is being exploited rewards a pattern of pixels, not what the clip shows. Such a pattern
does not survive a blur of half a pixel, a shift by one pixel, or a recompression at high quality,
and the clip looks the same. So the score of a tuned clip that collapses under them, where that of
the base's clip does not, was not earned by what is seen.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from reward_tuning.judges.judge import FramedJudge

BLUR_SIGMA = 0.5  # pixels
JPEG_QUALITY = 90


@torch.no_grad()
def reward_sharpness(
    frames: Tensor, texts: Sequence[str], judges: Sequence[FramedJudge]
) -> dict[str, Tensor]:
    """Measure how much of each clip's score imperceptible changes take away.

    Args:
        frames: `(b, f, 3, H, W)` in [0, 1].
        texts: b texts that the judges read.
        judges: Judges of frames.

    Returns:
        Label to `(b,)`: the score of the clip less the mean score of its `CHANGES`. In units of the
        judge; near 0 for a judge that sees what people see, negative if it likes the changed clips
        more.
    """
    of_changed: dict[str, list[Tensor]] = {judge.label: [] for judge in judges}
    for change in CHANGES.values():
        changed = change(frames)
        for judge in judges:
            of_changed[judge.label].append(judge.scores(changed, texts))
    return {
        judge.label: judge.scores(frames, texts) - torch.stack(of_changed[judge.label]).mean(dim=0)
        for judge in judges
    }


def blurred(frames: Tensor) -> Tensor:
    """Blur with a Gaussian of `BLUR_SIGMA`, cut off after one pixel; the edge is repeated."""
    weight = torch.exp(-0.5 * (torch.arange(-1.0, 2.0, device=frames.device) / BLUR_SIGMA) ** 2)
    kernel = torch.outer(weight, weight) / weight.sum() ** 2
    images = F.pad(frames.flatten(0, 2)[:, None], (1, 1, 1, 1), mode="replicate")
    return F.conv2d(images, kernel[None, None].to(frames.dtype)).view_as(frames)


def shifted(frames: Tensor) -> Tensor:
    """Shift one pixel to the right; the left edge is repeated."""
    return torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)


def recompressed(frames: Tensor) -> Tensor:
    """Write each frame as a JPEG of `JPEG_QUALITY`, colour at half the resolution, and read it."""
    pixels = (frames.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    images = pixels.flatten(0, 1).permute(0, 2, 3, 1).contiguous().numpy()
    found = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
        found.append(torch.from_numpy(np.array(Image.open(file))))
    read = torch.stack(found).permute(0, 3, 1, 2).view_as(pixels)
    return (read.to(torch.float32) / 255).to(frames)


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "blur": blurred,
    "shift": shifted,
    "recompression": recompressed,
}
"""The changes, by name: each keeps shape and range, and what the clip shows."""
