"""VBench's dynamic degree: whether anything in a clip moves far, by RAFT's optical flow.

Source: arXiv 2311.17982 (the rule) and torchvision's RAFT (arXiv 2003.12039). It only measures: its
threshold has no gradient; :class:`rewards.motion.MotionFlow` is the differentiable stand-in.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewards.base import CLIP_FPS, VideoReward
from rewards.checkpoint import check_keys, load_checkpoint
from rewards.errors import RewardError
from rewards.torchvision_import import ensure_torchvision_importable

ITERATIONS = 20
RATE = 8.0
"""Frames a second at which VBench looks at a clip."""

FASTEST = 0.05
"""Share of a frame's pixels, the fastest, whose mean counts."""

LEAST_SIDE = 128
"""torchvision's RAFT needs feature maps of 16, an eighth of the frame."""

FIRST_KERNEL = "feature_encoder.convnormrelu.0.weight"
VARIANTS = {32: "raft_small", 64: "raft_large"}
"""Number of the first kernels -> torchvision's name."""


def moves(speeds: Tensor, frames: int, shortest: int) -> Tensor:
    """VBench's rule.

    Args:
        speeds: ``(b, f - 1, H, W)`` length of each pixel's flow, pixels a frame.
        frames: f; so many pairs must move as a quarter of the frames, rounded.
        shortest: min(H, W); a pair moves where its fastest 5 % go 6 pixels of 256 on average.

    Returns:
        ``(b,)``: 1 where the clip is dynamic, 0 where it is not.
    """
    flat = speeds.flatten(2)
    fastest = flat.topk(max(int(FASTEST * flat.shape[2]), 1), dim=2).values.mean(dim=2)
    moving = (fastest > 6.0 * shortest / 256.0).sum(dim=1)
    return (moving >= round(4 * frames / 16.0)).float()


class DynamicDegree(VideoReward):
    """1 for a dynamic clip, 0 for any other, without gradient; its mean is VBench's figure.

    Attributes:
        clip_fps: frames a second of the clips; every ``round(clip_fps / 8)``-th is looked at.
    """

    name = "dynamic_degree"
    reads_text = False
    evaluation_only = True
    least_frames = 2

    def __init__(self, model: Any, clip_fps: float = CLIP_FPS) -> None:
        if not clip_fps > 0:
            raise RewardError(
                f"dynamic_degree has clip_fps {clip_fps}; give the clips' frames a second."
            )
        self.model: Any = model.eval().requires_grad_(False)
        self.device = next(model.parameters()).device
        self.clip_fps = clip_fps

    @property
    def modules(self) -> list[nn.Module]:
        """RAFT."""
        return [self.model]

    def at_rate(self, clip_fps: float) -> DynamicDegree:
        """The same judge for clips of another rate (:meth:`rewards.base.Judge.at_rate`)."""
        other = copy.copy(self)
        other.clip_fps = clip_fps
        return other

    @torch.no_grad()
    def score_clips(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """``(b, f, 3, H, W)`` in [0, 1] -> ``(b,)``, 0 or 1."""
        frames = frames[:, :: max(1, round(self.clip_fps / RATE))]
        speeds = self.flow(frames).square().sum(dim=2).sqrt()
        return moves(speeds, frames.shape[1], min(frames.shape[-2:]))

    def flow(self, frames: Tensor) -> Tensor:
        """Optical flow between neighbouring frames, ``(b, f - 1, 2, H, W)`` in pixels."""
        height, width = frames.shape[-2:]
        pad_h, pad_w = (max(LEAST_SIDE, -(-side // 8) * 8) - side for side in (height, width))
        sides = (pad_w // 2, pad_w - pad_w // 2, pad_h // 2, pad_h - pad_h // 2)
        padded = F.pad(2 * frames.flatten(0, 1) - 1, sides, mode="replicate")
        padded = padded.unflatten(0, frames.shape[:2])
        pairs = [
            self.model(padded[:, i], padded[:, i + 1], num_flow_updates=ITERATIONS)[-1]
            for i in range(frames.shape[1] - 1)
        ]
        flow = torch.stack(pairs, dim=1)
        return flow[..., sides[2] : sides[2] + height, sides[0] : sides[0] + width]


def build_raft(variant: str) -> Any:
    """A ``raft_small`` or ``raft_large`` of torchvision with random weights."""
    ensure_torchvision_importable()
    from torchvision.models import optical_flow

    return getattr(optical_flow, variant)(weights=None)


def load_dynamic_degree(
    checkpoint: str | Path,
    *,
    device: str | torch.device = "cpu",
    folder: Path | None = None,
    clip_fps: float | None = None,
) -> DynamicDegree:
    """Load RAFT from a file of torchvision's layout, small or large.

    Args:
        checkpoint: such as torchvision's ``raft_large_C_T_SKHT_V2-ff5fadd5.pth``.
        device: where it runs.
        folder: what a relative path is relative to.
        clip_fps: frames a second of the clips; 8 if not given.

    Raises:
        RewardError: a missing, damaged or foreign file, the original ``raft-things.pth`` included.
    """
    loaded = load_checkpoint(checkpoint, folder)
    kernel = loaded.state.get(FIRST_KERNEL)
    variant = VARIANTS.get(len(kernel)) if kernel is not None and kernel.ndim else None
    if variant is None:
        raise RewardError(
            f"{loaded.path} is no RAFT of torchvision: it has no {FIRST_KERNEL} of 32 or 64 "
            "kernels. Give raft_small or raft_large as torchvision publishes them (download.pytorch"
            ".org/models); the original raft-things.pth has other names."
        )
    with torch.device("meta"):
        model = build_raft(variant)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    check_keys(expected, loaded.state, variant, loaded.path)
    state = {n: t.float() if t.is_floating_point() else t for n, t in loaded.state.items()}
    model.load_state_dict(state, assign=True)
    return DynamicDegree(model.to(device), CLIP_FPS if clip_fps is None else clip_fps)
