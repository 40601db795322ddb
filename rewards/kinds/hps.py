"""HPSv2 and HPSv2.1: human preference as the cosine of a CLIP (Wu et al., 2306.09341)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rewards.clip_towers.open_clip_models import Architecture, image_size
from rewards.clip_towers.tower import find_architecture, load_tower
from rewards.core.preprocess import Preprocess, PreprocessChoice, chosen_preprocess
from rewards.core.tower_options import TowerOptions
from rewards.core.weight_file import load_weights
from rewards.kinds.clip import ClipReward, Relative, as_relative


class HpsReward(ClipReward):
    """The cosine of image and text features, as `hpsv2.score`; its tables give 100 times it.

    Published range: about 0.23 to 0.31. `logit_scale` is not used.
    """

    name = "hps"


def hps_preprocess(size: int) -> Preprocess:
    """Return that of `hpsv2.score`: the longest side is resized as floats, black bars are added."""
    return Preprocess("letterbox", size, clamped=False)


def load_hps(
    checkpoint: str | Path,
    tower_options: TowerOptions,
    *,
    architecture: str | Architecture | None = None,
    relative: Relative | Mapping[str, Any] | None = None,
    preprocess: PreprocessChoice = "own",
) -> HpsReward:
    """Load an HPS checkpoint (`{"state_dict": ...}` with open_clip's keys, or safetensors).

    The options are those of `rewards.kinds.clip.load_clip`, and `preprocess`: `own` as
    `hpsv2.score`, `squash` as EasyAnimate's reward script
    (`rewards.core.preprocess.Preprocess.squashed`).

    Raises:
        RewardError: See `rewards.load_reward`.
    """
    loaded = load_weights(checkpoint, tower_options.folder)
    own, _ = find_architecture(loaded, architecture)
    tower = load_tower(loaded, tower_options, architecture, hps_preprocess(image_size(own)))
    tower.preprocess = chosen_preprocess(tower.preprocess, preprocess)
    return HpsReward(tower, as_relative(relative))
