"""Feature consistency between the frames of a clip, in VBench's form.

VBench's background consistency is this on OpenAI's CLIP ViT-B/32 (arXiv 2311.17982, section 4); its
subject consistency the same on DINO. A still clip is perfectly consistent: combine this judge with
one of motion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from rewards.clip_towers.open_clip_models import Architecture
from rewards.clip_towers.tower import ClipTower
from rewards.core.base import VideoReward, chunked_score
from rewards.core.preprocess import Preprocess
from rewards.core.tower_options import TowerOptions
from rewards.errors import RewardError
from rewards.kinds.clip import load_clip


def consistency(features: Tensor) -> Tensor:
    """Return the mean over frames of the similarity to the previous and to the first frame.

    Args:
        features: `(b, f, d)` of length 1, f at least 2.

    Returns:
        `(b,)` in [0, 1]; cosines below 0 count as 0.
    """
    later = features[:, 1:]
    before = (later * features[:, :-1]).sum(dim=-1).relu()
    first = (later * features[:, :1]).sum(dim=-1).relu()
    return ((before + first) / 2).mean(dim=1)


class Consistency(VideoReward):
    """`consistency` of a CLIP's image features, in [0, 1]; good clips score above 0.9.

    Attributes:
        encoded_at_once: Number of frames encoded in one pass, `None` for all; bounds the memory.
        cap: Largest score; higher ones count as this, without gradient; `None` for no cap.
    """

    name = "consistency"
    reads_text = False
    least_frames = 2
    cap: float | None = None

    def __init__(self, tower: ClipTower, *, encoded_at_once: int | None = None) -> None:
        self.tower = tower
        self.device = tower.device
        self.encoded_at_once = encoded_at_once

    @property
    def modules(self) -> list[nn.Module]:
        """The model with both towers."""
        return [self.tower.model]

    def score_clips(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """`(b, f, 3, H, W)` in [0, 1] -> `(b,)`."""
        features = chunked_score(
            lambda images, rows: self.tower.image_features(images),
            frames.flatten(0, 1),
            self.encoded_at_once,
        )
        scores = consistency(features.unflatten(0, frames.shape[:2]))
        return scores if self.cap is None else scores.clamp_max(self.cap)


def load_consistency(
    checkpoint: str | Path,
    tower_options: TowerOptions,
    *,
    architecture: str | Architecture | None = None,
    encoded_at_once: int | None = None,
    preprocess: Literal["own", "vbench"] = "own",
) -> Consistency:
    """Load any open_clip checkpoint as a judge of consistency.

    Args:
        checkpoint: Name or path of the file (see `rewards.load_reward`).
        tower_options: Where and how the towers run; features are fp32 before any dot product.
        architecture: open_clip's model name or its configuration, for a file that does not state
            it.
        encoded_at_once: Number of frames encoded in one pass, `None` for all.
        preprocess: `own` for the CLIP's own resize, `vbench` for that of VBench's numbers
            (`vbench_preprocess`).

    Raises:
        RewardError: See `rewards.load_reward`.
    """
    if preprocess not in ("own", "vbench"):
        raise RewardError(f"preprocess is {preprocess!r}; allowed: own, vbench")
    # No pool: the tower's preprocessing may be replaced below, and it is this judge's alone.
    alone = dataclasses.replace(tower_options, pool=None)
    clip = load_clip(checkpoint, alone, architecture=architecture)
    if preprocess == "vbench":
        clip.tower.preprocess = vbench_preprocess(clip.tower.preprocess)
    return Consistency(clip.tower, encoded_at_once=encoded_at_once)


def vbench_preprocess(own: Preprocess) -> Preprocess:
    """Return VBench's `clip_transform`: bicubic of float frames, no antialiasing, no clamp.

    Its loader converts a clip's bytes to floats before the resize, so nothing is rounded either;
    then comes the rounded centre crop.

    Args:
        own: Preprocessing of the CLIP, whose size, mean and standard deviation are kept.
    """
    return Preprocess("crop", own.size, own.mean, own.std, clamped=False, antialias=False)
