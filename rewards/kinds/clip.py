"""CLIP text alignment: the cosine of a frame and its prompt (CLIPScore without its factor)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rewards.clip_towers.open_clip_models import Architecture
from rewards.clip_towers.tower import ClipTower, load_tower
from rewards.core.base import FrameReward
from rewards.core.preprocess import Preprocess
from rewards.core.tower_options import TowerOptions
from rewards.core.weight_file import load_weights
from rewards.errors import RewardError

PLACE = "{prompt}"


@dataclass(frozen=True)
class Relative:
    """SRPO's semantic-relative preference (arXiv 2509.06942): one text is scored against another.

    score = (1 + k) cosine(frame, positive text) - cosine(frame, negative text)

    Whatever both texts like or dislike about a frame, such as the judge's own taste, cancels; the
    difference that the words make remains. Costs one pass of the image tower, as without.

    Attributes:
        positive: Template with `{prompt}`, such as "a clean picture: {prompt}".
        negative: Template with `{prompt}`, such as "a torn picture: {prompt}".
        k: Extra weight of the positive text, 0 or more; 0 in the authors' code.

    Raises:
        RewardError: A template has no `{prompt}`, both are equal, or k is negative.
    """

    positive: str
    negative: str
    k: float = 0.0

    def __post_init__(self) -> None:
        for name in ("positive", "negative"):
            if PLACE not in getattr(self, name):
                raise RewardError(
                    f"relative.{name} is {getattr(self, name)!r}; write {PLACE} where the prompt "
                    f'goes, such as "a clean picture: {PLACE}"'
                )
        if self.positive == self.negative:
            raise RewardError(
                f"relative.positive and relative.negative are both {self.positive!r}; their "
                "difference is 0. Describe what to move towards in one and away from in the other"
            )
        if not self.k >= 0.0:
            raise RewardError(f"relative.k is {self.k}; allowed: 0 or more")

    def texts(self, prompts: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the positive and the negative text of each prompt."""
        first, second = (
            [template.replace(PLACE, prompt) for prompt in prompts]
            for template in (self.positive, self.negative)
        )
        return first, second


def as_relative(relative: Relative | Mapping[str, Any] | None) -> Relative | None:
    """Make the class from its fields, as a recipe has them."""
    return Relative(**relative) if isinstance(relative, Mapping) else relative


class ClipReward(FrameReward):
    """The cosine of image and text features.

    Published CLIPs give about 0.2 to 0.35. The paper's CLIPScore is `2.5 * max(cosine, 0)`.
    """

    name = "clip"

    def __init__(self, tower: ClipTower, relative: Relative | None = None) -> None:
        self.tower = tower
        self.device = tower.device
        self.relative = relative
        self.context_length = tower.context_length

    @property
    def modules(self) -> list[nn.Module]:
        """The model with both towers."""
        return [self.tower.model]

    def truncated(self, prompts: Sequence[str]) -> list[int]:
        """Return the positions of prompts that are cut off, within a template too."""
        texts = [list(prompts)] if self.relative is None else list(self.relative.texts(prompts))
        return sorted({i for some in texts for i in self.tower.truncated(some)})

    def image_features(self, images: Tensor) -> Tensor:
        """Return the tower's image features, `(n, d)` of length 1."""
        return self.tower.image_features(images)

    def condition(self, prompts: Sequence[str]) -> Tensor:
        """Return the factors of the image features, `(b, d)`: text features, cached."""
        if self.relative is None:
            return self.tower.text_features(prompts)
        positive, negative = map(self.tower.text_features, self.relative.texts(prompts))
        return (1.0 + self.relative.k) * positive - negative

    def score_images(self, images: Tensor, condition: Tensor | None) -> Tensor:
        """Score frames `(n, 3, H, W)` in [0, 1]: cosines with `(n, d)`, or their difference."""
        assert condition is not None
        return (self.tower.image_features(images) * condition).sum(dim=-1)


def clip_preprocess(size: int) -> Preprocess:
    """Return that of open_clip and OpenAI: PIL bicubic of the shortest side, rounded crop."""
    return Preprocess("crop", size, rounding="round", quantised=True)


def load_clip(
    checkpoint: str | Path,
    tower_options: TowerOptions,
    *,
    architecture: str | Architecture | None = None,
    relative: Relative | Mapping[str, Any] | None = None,
) -> ClipReward:
    """Load any open_clip checkpoint as a judge, with the preprocessing of its own model.

    Args:
        checkpoint: Name or path of the file (see `rewards.load_reward`).
        tower_options: Where and how the towers run; features are fp32 before any dot product.
        architecture: open_clip's model name or its configuration, for a file that does not state
            it.
        relative: Texts to score against each other (`Relative`, or its fields).

    Raises:
        RewardError: See `rewards.load_reward`.
    """
    tower = load_tower(load_weights(checkpoint, tower_options.folder), tower_options, architecture)
    return ClipReward(tower, as_relative(relative))
