"""A judge of your own: it prefers warm clips that are brightest in the middle of the frame.

In a recipe, next to the other judges (the path is relative to the recipe):

    rewards:
      - {kind: python, checkpoint: my_judge.py, options: {warmth: 2.0}, weight: 0.5}

On files: `reward-tuning score clip.mp4 --prompt "a fox" --reward python:my_judge.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rewards import FrameReward


class WarmMiddle(FrameReward):
    """Mean brightness under a soft spot in the middle, plus weighted red minus blue.

    Args:
        warmth: Weight of red minus blue.
        spot: Standard deviation of the spot, as a fraction of the side.
    """

    reads_text = False  # the score does not depend on the prompt

    def __init__(self, warmth: float = 1.0, spot: float = 0.25) -> None:
        self.warmth = warmth
        self.spot = spot

    @property
    def modules(self) -> list[nn.Module]:
        """Networks to freeze and to move to the device: none here."""
        return []

    def condition(self, prompts: Sequence[str]) -> None:
        """Encode the prompts for `score_images`: nothing to encode here."""

    def image_features(self, images: Tensor) -> Tensor:
        """Return mean colours, `(n, 3)` of length 1; only `train.repulsion` needs features."""
        return nn.functional.normalize(images.mean(dim=(2, 3)), dim=1)

    def score_images(self, images: Tensor, condition: Tensor | None) -> Tensor:
        """Score images `(n, 3, H, W)` in [0, 1]; return `(n,)`, each image on its own."""
        y, x = (torch.linspace(-0.5, 0.5, side, device=images.device) for side in images.shape[2:])
        spot = torch.exp(-(y[:, None] ** 2 + x**2) / (2 * self.spot**2))
        brightness = (images.mean(dim=1) * spot).sum(dim=(1, 2)) / spot.sum()
        red, _, blue = images.mean(dim=(2, 3)).unbind(dim=1)
        return brightness + self.warmth * (red - blue)
