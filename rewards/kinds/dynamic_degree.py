"""VBench's dynamic degree: whether anything in a clip moves far, by RAFT's optical flow.

Source: arXiv 2311.17982 (the rule) and RAFT (arXiv 2003.12039) in torchvision's code. VBench runs
the weights `raft-things.pth` in the original code; the flow is the same to 1e-5 pixels. It only
measures: its threshold has no gradient; `rewards.kinds.motion.MotionFlow` is the differentiable
alternative.
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
from rewards.networks.raft_keys import is_original_raft, torchvision_names

ITERATIONS = 20
RATE = 8.0
"""Frames per second at which VBench looks at a clip."""

FASTEST = 0.05
"""Share of a frame's pixels, the fastest ones, whose mean speed counts."""

STRIDE = 8
"""Frames are padded to multiples of it, half on either side."""

LEAST_SIDE = 128
"""Smallest side: torchvision's RAFT needs feature maps of 16, an eighth of the frame."""

FIRST_KERNEL = "feature_encoder.convnormrelu.0.weight"
VARIANTS = {32: "raft_small", 64: "raft_large"}
"""Number of the first kernels -> torchvision's name."""


def moves(speeds: Tensor, frames: int, shortest: int) -> Tensor:
    """Apply VBench's rule.

    Args:
        speeds: `(b, f - 1, H, W)` length of each pixel's flow in pixels per frame, the padding to
            multiples of 8 included, as VBench counts it.
        frames: Number of frames f; a quarter of it, rounded, is the number of pairs that must move.
        shortest: Shortest side of a frame; a pair moves if its fastest 5 % move by more than 6 of
            256 pixels on average.

    Returns:
        `(b,)`: 1 for a dynamic clip, 0 for any other.
    """
    flat = speeds.flatten(2)
    fastest = flat.topk(max(int(FASTEST * flat.shape[2]), 1), dim=2).values.mean(dim=2)
    moving = (fastest > 6.0 * shortest / 256.0).sum(dim=1)
    return (moving >= round(4 * frames / 16.0)).float()


class DynamicDegree(VideoReward):
    """1 for a dynamic clip, 0 for any other, without gradient; its mean is VBench's number.

    Attributes:
        fps: Frame rate of the clips, of which every `round(fps / 8)`-th frame is used.
    """

    name = "dynamic_degree"
    reads_text = False
    differentiable = False
    least_frames = 2

    def __init__(self, model: Any, fps: float = RATE) -> None:
        if not fps > 0:
            raise RewardError(
                f"dynamic_degree has fps {fps}; give the frame rate of the clips, above 0"
            )
        self.model: Any = model.eval().requires_grad_(False)
        self.device = next(model.parameters()).device
        self.fps = fps

    @property
    def modules(self) -> list[nn.Module]:
        """RAFT."""
        return [self.model]

    def at_rate(self, fps: float) -> DynamicDegree:
        """Return this judge for clips of `fps` frames per second."""
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
        """Compute the optical flow between neighbouring frames.

        Args:
            frames: `(b, f, 3, H, W)` in [0, 1].

        Returns:
            `(b, f - 1, 2, H', W')` in pixels, H' and W' the next multiples of 8.
        """
        size = frames.shape[-2:]
        height, width = (-(-side // STRIDE) * STRIDE for side in size)
        padded = _continued(2 * frames.flatten(0, 1) - 1, (height, width))
        # Padding beyond that, which only torchvision needs, is cut off again.
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
    """Pad frames to a size by repeating their edges, half on either side."""
    rows, columns = (a - b for a, b in zip(size, images.shape[-2:], strict=True))
    sides = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    return F.pad(images, sides, mode="replicate")


def build_raft(variant: str) -> Any:
    """Build a `raft_small` or `raft_large` of torchvision with random weights."""
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
    """Load RAFT from a file in torchvision's layout, small or large, or in the original's, large.

    Args:
        checkpoint: `raft-things.pth`, which VBench takes, or such as torchvision's
            `raft_large_C_T_SKHT_V2-ff5fadd5.pth`.
        device: Device that it runs on.
        folder: Folder that relative paths start from.
        fps: Frame rate of the clips; `None` for the generator's 8.

    Raises:
        RewardError: The file is missing, damaged or of another model, such as the original small
            RAFT.
    """
    loaded = load_weights(checkpoint, folder)
    named = loaded.state
    if is_original_raft(named):
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
