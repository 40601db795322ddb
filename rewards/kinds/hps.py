"""HPSv2 and HPSv2.1: human preference as the cosine of a CLIP (Wu et al., 2306.09341)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rewards.clip_towers.open_clip_models import Architecture, image_size
from rewards.clip_towers.tower import TowerOptions, find_architecture, load_tower
from rewards.core.checkpoint import load_checkpoint
from rewards.core.preprocess import Prepared, Preprocess, prepared
from rewards.core.shared_towers import TowerPool
from rewards.kinds.clip import ClipReward, Relative, as_relative


class HpsReward(ClipReward):
    """Cosine of image and text features, as ``hpsv2.score`` gives it; its tables say 100 times it.

    Published range: about 0.23 to 0.31. ``logit_scale`` is not used.
    """

    name = "hps"


def hps_preprocess(size: int) -> Preprocess:
    """As ``hpsv2.score``: the longest side is resized as floats, black bars fill the square."""
    return Preprocess("letterbox", size, clamped=False)


def load_hps(
    checkpoint: str | Path,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    folder: Path | None = None,
    gradient_checkpointing: bool = False,
    architecture: str | Architecture | None = None,
    relative: Relative | Mapping[str, Any] | None = None,
    preprocess: Prepared = "own",
    pool: TowerPool | None = None,
) -> HpsReward:
    """Load an HPS checkpoint (``{"state_dict": ...}`` with open_clip's keys, or safetensors).

    The options are those of :func:`rewards.clip.load_clip`, and ``preprocess``: ``own`` as
    ``hpsv2.score``, ``squash`` as EasyAnimate's reward script
    (:meth:`rewards.preprocess.Preprocess.squashed`).

    Raises:
        RewardError: see :func:`rewards.loading.load_reward`.
    """
    loaded = load_checkpoint(checkpoint, folder)
    options = TowerOptions(device, dtype, architecture, gradient_checkpointing, pool)
    own, _ = find_architecture(loaded, options.architecture)
    tower = load_tower(loaded, options, hps_preprocess(image_size(own)))
    tower.preprocess = prepared(tower.preprocess, preprocess)
    return HpsReward(tower, as_relative(relative))
