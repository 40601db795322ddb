"""VBench's dynamic degree: whether anything in a clip moves far, by RAFT's optical flow.

Source: arXiv 2311.17982 (the rule) and RAFT (arXiv 2003.12039) in torchvision's code. VBench runs
the weights `raft-things.pth` in the original's; the flow is the same to 1e-5 pixels. It only
measures: its threshold has no gradient; `rewards.kinds.motion.MotionFlow` is the differentiable
stand-in.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewards.core.base import VideoReward
from rewards.core.torchvision_import import ensure_torchvision_importable
from rewards.core.weight_file import check_keys, load_weights
from rewards.errors import RewardError
from rewards.networks.raft_keys import original_raft, torchvision_names

ITERATIONS = 20
RATE = 8.0
"""Frames a second at which VBench looks at a clip."""

FASTEST = 0.05
"""Share of a frame's pixels, the fastest, whose mean counts."""

STRIDE = 8
"""Frames are continued to multiples of it, half on either side."""

LEAST_SIDE = 128
"""torchvision's RAFT needs feature maps of 16, an eighth of the frame."""

FIRST_KERNEL = "feature_encoder.convnormrelu.0.weight"
VARIANTS = {32: "raft_small", 64: "raft_large"}
"""Number of the first kernels -> torchvision's name."""


def moves(speeds: Tensor, frames: int, shortest: int) -> Tensor:
    """VBench's rule.

    Args:
        speeds: `(b, f - 1, H, W)` length of each pixel's flow, pixels a frame, with what frames
            were continued by to multiples of 8, as VBench counts it.
        frames: F; so many pairs must move as a quarter of the frames, rounded.
        shortest: Side of a frame; a pair moves where its fastest 5 % go 6 pixels of 256 on average.

    Returns:
        `(b,)`: 1 where the clip is dynamic, 0 where it is not.
    """
    flat = speeds.flatten(2)
    fastest = flat.topk(max(int(FASTEST * flat.shape[2]), 1), dim=2).values.mean(dim=2)
    moving = (fastest > 6.0 * shortest / 256.0).sum(dim=1)
    return (moving >= round(4 * frames / 16.0)).float()


class DynamicDegree(VideoReward):
    """1 for a dynamic clip, 0 for any other, without gradient; its mean is VBench's figure.

    Attributes:
        fps: Frames a second of the clips; every `round(fps / 8)`-th is looked at.
    """

    name = "dynamic_degree"
    reads_text = False
    evaluation_only = True
    least_frames = 2

    def __init__(self, model: Any, fps: float = RATE) -> None:
        if not fps > 0:
            raise RewardError(f"dynamic_degree has fps {fps}; give the clips' frames a second")
        self.model: Any = model.eval().requires_grad_(False)
        self.device = next(model.parameters()).device
        self.fps = fps

    @property
    def modules(self) -> list[nn.Module]:
        """RAFT."""
        return [self.model]

    def at_rate(self, fps: float) -> DynamicDegree:
        """The same judge for clips of `fps` frames a second."""
        other = copy(self)
        other.fps = fps
        return other

    @torch.no_grad()
    def score_clips(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """`(b, f, 3, H, W)` in [0, 1] -> `(b,)`, 0 or 1."""
        frames = frames[:, :: max(1, round(self.fps / RATE))]
        speeds = self.flow(frames).square().sum(dim=2).sqrt()
        return moves(speeds, frames.shape[1], min(frames.shape[-2:]))

    def flow(self, frames: Tensor) -> Tensor:
        """Optical flow between neighbouring frames.

        Args:
            frames: `(b, f, 3, H, W)` in [0, 1].

        Returns:
            `(b, f - 1, 2, H', W')` in pixels, H' and W' the next multiples of 8.
        """
        size = frames.shape[-2:]
        height, width = (-(-side // STRIDE) * STRIDE for side in size)
        padded = _continued(2 * frames.flatten(0, 1) - 1, (height, width))
        # What torchvision needs beyond that is cut off again: VBench does not have it.
        least = max(LEAST_SIDE, height), max(LEAST_SIDE, width)
        padded = _continued(padded, least).unflatten(0, frames.shape[:2])
        pairs = [
            self.model(padded[:, i], padded[:, i + 1], num_flow_updates=ITERATIONS)[-1]
            for i in range(frames.shape[1] - 1)
        ]
        flow = torch.stack(pairs, dim=1)
        top, left = ((a - b) // 2 for a, b in zip(least, (height, width), strict=True))
        return flow[..., top : top + height, left : left + width]


def _continued(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Repeat the edges up to a size, half on either side."""
    rows, columns = (a - b for a, b in zip(size, images.shape[-2:], strict=True))
    sides = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    return F.pad(images, sides, mode="replicate")


def build_raft(variant: str) -> Any:
    """A `raft_small` or `raft_large` of torchvision with random weights."""
    ensure_torchvision_importable()
    from torchvision.models import optical_flow

    return getattr(optical_flow, variant)(weights=None)


def load_dynamic_degree(
    checkpoint: str | Path,
    *,
    device: str | torch.device = "cpu",
    folder: Path | None = None,
    fps: float | None = None,
) -> DynamicDegree:
    """Load RAFT from a file of torchvision's layout, small or large, or of the original's, large.

    Args:
        checkpoint: `raft-things.pth`, which VBench takes, or such as torchvision's
            `raft_large_C_T_SKHT_V2-ff5fadd5.pth`.
        device: Where it runs.
        folder: What a relative path is relative to.
        fps: Frames a second of the clips; `None` for 8, those of the generator.

    Raises:
        RewardError: A missing, damaged or foreign file, the original small RAFT included.
    """
    loaded = load_weights(checkpoint, folder)
    named = loaded.state
    if original_raft(named):
        named = torchvision_names(named, loaded.path)
    kernel = named.get(FIRST_KERNEL)
    variant = VARIANTS.get(len(kernel)) if kernel is not None and kernel.ndim else None
    if variant is None:
        raise RewardError(
            f"{loaded.path} is neither torchvision's RAFT nor the original: it has no "
            f"{FIRST_KERNEL} of 32 or 64 kernels. Give raft-things.pth of the original's "
            "models.zip, or torchvision's raft_small or raft_large (download.pytorch.org/models)"
        )
    with torch.device("meta"):
        model = build_raft(variant)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    check_keys(expected, named, variant, loaded.path)
    state = {n: t.float() if t.is_floating_point() else t for n, t in named.items()}
    model.load_state_dict(state, assign=True)
    return DynamicDegree(model.to(device), RATE if fps is None else fps)
