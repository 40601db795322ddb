"""PickScore: human preference as the scaled cosine of a CLIP (Kirstain et al., 2305.01569).

The published file is transformers' `CLIPModel`; it is loaded into the same tower as every other
CLIP. Two things differ: transformers' tokenizer, which leaves text unchanged, and a centre crop
whose odd pixel is floored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from rewards.clip_towers.open_clip_models import Architecture, image_size
from rewards.clip_towers.tokenizers import build_transformers_tokenizer
from rewards.clip_towers.tower import find_architecture, load_tower
from rewards.core.preprocess import Preprocess
from rewards.core.tower_options import TowerOptions
from rewards.core.weight_file import load_weights
from rewards.kinds.clip import ClipReward, Relative, as_relative


class PickScoreReward(ClipReward):
    """`exp(logit_scale)` times the cosine of image and text features; about 18 to 24.

    It compares each image with its own prompt; the authors' script uses the first prompt for all.
    """

    name = "pickscore"

    def score_images(self, images: Tensor, condition: Tensor | None) -> Tensor:
        """Score frames: `(n, 3, H, W)` in [0, 1] and `(n, d)` -> `(n,)`."""
        scale = self.tower.model.logit_scale.exp()
        return scale * super().score_images(images, condition)


def pickscore_preprocess(size: int) -> Preprocess:
    """Return that of `CLIPImageProcessor`: PIL bicubic of the shortest side, floored crop."""
    return Preprocess("crop", size, rounding="floor", quantised=True)


def _tokenizer(architecture: Architecture, merges: Path | None, folder: Path | None) -> Any:
    del folder  # the vocabulary is OpenAI's, or that of the merges
    return build_transformers_tokenizer(architecture, merges)


def load_pickscore(
    checkpoint: str | Path,
    tower_options: TowerOptions,
    *,
    architecture: str | Architecture | None = None,
    relative: Relative | Mapping[str, Any] | None = None,
) -> PickScoreReward:
    """Load a PickScore: transformers' `CLIPModel`, or the same CLIP in open_clip's layout.

    Args:
        checkpoint: Name or path of the file (see `rewards.load_reward`).
        tower_options: Where and how the towers run; features are fp32 before any dot product.
        architecture: open_clip's model name or its configuration, for a file that does not state
            it: `ViT-H-14` for a copy of the published one under another name.
        relative: Texts to score against each other (`rewards.kinds.clip.Relative`, or its fields).

    Raises:
        RewardError: See `rewards.load_reward`.
    """
    loaded = load_weights(checkpoint, tower_options.folder)
    own, _ = find_architecture(loaded, architecture)
    spec = pickscore_preprocess(image_size(own))
    tower = load_tower(loaded, tower_options, architecture, spec, _tokenizer)
    return PickScoreReward(tower, as_relative(relative))
