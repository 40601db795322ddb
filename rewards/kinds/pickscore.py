"""PickScore: human preference as the scaled cosine of a CLIP (Kirstain et al., 2305.01569).

The published file is transformers' ``CLIPModel``; it is loaded into the same tower as every other
CLIP. What is its own: transformers' tokenizer, which takes text as it is, and a centre crop whose
odd pixel is floored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewards.clip_towers.open_clip_models import Architecture, image_size
from rewards.clip_towers.tokenizers import build_transformers_tokenizer
from rewards.clip_towers.tower import TowerOptions, find_architecture, load_tower
from rewards.core.checkpoint import load_checkpoint
from rewards.core.preprocess import Preprocess
from rewards.core.shared_towers import TowerPool
from rewards.kinds.clip import ClipReward, Relative, as_relative


class PickScoreReward(ClipReward):
    """``exp(logit_scale)`` times the cosine of image and text features; about 18 to 24.

    Row by row: the authors' script compares all images with the first prompt only.
    """

    name = "pickscore"

    def score_images(self, images: Tensor, condition: Tensor | None) -> Tensor:
        """``(n, 3, H, W)`` in [0, 1] and ``(n, d)`` -> ``(n,)``."""
        scale = self.tower.model.logit_scale.exp()
        return scale * super().score_images(images, condition)


def pickscore_preprocess(size: int) -> Preprocess:
    """As transformers' ``CLIPImageProcessor``: PIL bicubic of the shortest side, floored crop."""
    return Preprocess("crop", size, rounding="floor", quantised=True)


def _tokenizer(architecture: Architecture, merges: Path | None, beside: Path | None) -> Any:
    del beside  # its words are OpenAI's, or those of the merges
    return build_transformers_tokenizer(architecture, merges)


def load_pickscore(
    checkpoint: str | Path,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    folder: Path | None = None,
    gradient_checkpointing: bool = False,
    architecture: str | Architecture | None = None,
    relative: Relative | Mapping[str, Any] | None = None,
    pool: TowerPool | None = None,
) -> PickScoreReward:
    """Load a PickScore: transformers' ``CLIPModel``, or the same CLIP in open_clip's layout.

    Args:
        checkpoint: see :func:`rewards.loading.load_reward`, as the next four.
        device: where it runs.
        dtype: of the towers; features are fp32 before any dot product.
        folder: what a relative path is relative to.
        gradient_checkpointing: recompute each block of the vision transformer.
        architecture: open_clip's model name or its configuration, for a file that does not say:
            ``ViT-H-14`` for a copy of the published one under another name.
        relative: judge one text against another (:class:`rewards.clip.Relative`, or its fields).
        pool: where it shares what is equal with other judges.

    Raises:
        RewardError: see :func:`rewards.loading.load_reward`.
    """
    loaded = load_checkpoint(checkpoint, folder)
    options = TowerOptions(device, dtype, architecture, gradient_checkpointing, pool)
    own, _ = find_architecture(loaded, options.architecture)
    spec = pickscore_preprocess(image_size(own))
    tower = load_tower(loaded, options, spec, _tokenizer)
    return PickScoreReward(tower, as_relative(relative))
