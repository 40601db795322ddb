"""Terms of the loss that see a whole clip, where judges see single frames: motion, diversity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from reward_tuning.errors import TuningError
from rewards.kinds.motion import FEWEST_FRAMES, motion_energy


@dataclass(frozen=True)
class ClipTerms:
    """Which terms join the judges.

    Attributes:
        motion: weight of the motion term.
        motion_target: motion from which on it gives no gradient; None for no end.
        repulsion: weight of the likeness of clips of one prompt.
        clips_per_prompt: clips of one prompt lie side by side in a batch.
    """

    motion: float = 0.0
    motion_target: float | None = None
    repulsion: float = 0.0
    clips_per_prompt: int = 1

    @property
    def labels(self) -> list[str]:
        """Names in metrics of the terms that are on."""
        return [name for name in ("motion_term", "likeness") if self.weight(name)]

    def weight(self, name: str) -> float:
        """Weight of a term by its name in metrics."""
        return {"motion_term": self.motion, "likeness": self.repulsion}[name]


def steady_motion(frames: Tensor) -> Tensor:
    """How much moves, in a measure that flicker does not feed (:func:`rewards.motion_energy`).

    Args:
        frames: `(b, f, 3, H, W)` in [0, 1], f at least 5, H and W at least 4.

    Returns:
        `(b,)`, differentiable; 0 for a still.

    Raises:
        TuningError: fewer frames.
    """
    if frames.shape[1] < FEWEST_FRAMES:
        raise TuningError(
            f"the motion term needs {FEWEST_FRAMES} neighbouring frames, and {frames.shape[1]} are "
            "decoded; let a judge see more (rewards.*.frames, train.decoded_latents)"
        )
    return motion_energy(frames)


def likeness(features: Tensor, clips_per_prompt: int) -> Tensor:
    """Mean cosine of two clips of one prompt, over all pairs.

    Args:
        features: `(b, d)`, a feature vector a clip; clips of a prompt lie side by side.
        clips_per_prompt: n, at least 2; divides b.

    Returns:
        `(b / n,)` in [-1, 1], differentiable.
    """
    groups = F.normalize(features, dim=1).view(-1, clips_per_prompt, features.shape[1])
    products = groups @ groups.transpose(1, 2)
    pairs = clips_per_prompt * (clips_per_prompt - 1)
    return (products.sum(dim=(1, 2)) - clips_per_prompt) / pairs


def shortfall(values: Tensor, target: float | None) -> Tensor:
    """What a term adds to the loss: minus its mean, or how far below a target it stays."""
    return -values.mean() if target is None else torch.relu(target - values).mean()
