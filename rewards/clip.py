"""CLIP text alignment: the cosine of a frame and its prompt (CLIPScore without its factor)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from rewards.base import FrameReward
from rewards.checkpoint import load_checkpoint
from rewards.clip_tower import ClipTower, TowerOptions, find_architecture, load_tower
from rewards.preprocess import Preprocess


class ClipReward(FrameReward):
    """Cosine of image and text features.

    Published CLIPs give about 0.2 to 0.35. The paper's CLIPScore is ``2.5 * max(cosine, 0)``.
    """

    name = "clip"

    def __init__(self, tower: ClipTower) -> None:
        self.tower = tower
        self.device = tower.device

    def condition(self, prompts: Sequence[str]) -> Tensor:
        """Text features ``(b, d)``, cached."""
        return self.tower.text_features(prompts)

    def score_images(self, images: Tensor, condition: Tensor | None) -> Tensor:
        """``(n, 3, H, W)`` in [0, 1] and ``(n, d)`` -> ``(n,)`` in [-1, 1]."""
        assert condition is not None
        return (self.tower.image_features(images) * condition).sum(dim=-1)


def clip_preprocess(size: int) -> Preprocess:
    """As open_clip and OpenAI evaluate: PIL bicubic of the shortest side, rounded centre crop."""
    return Preprocess("crop", size, rounding="round", quantised=True)


def load_clip(checkpoint: str | Path, folder: Path | None, options: TowerOptions) -> ClipReward:
    """Load any open_clip checkpoint as a judge.

    Raises:
        RewardError: see :func:`rewards.base.load_reward`.
    """
    loaded = load_checkpoint(checkpoint, folder)
    architecture, _ = find_architecture(loaded, options.architecture)
    size = architecture["vision_cfg"]["image_size"]
    return ClipReward(load_tower(loaded, options, clip_preprocess(size)))
