"""Terms of the loss that see whole clips, where many judges see single frames."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from reward_tuning.errors import TuningError
from rewards.kinds.motion import FEWEST_FRAMES, motion_energy


@dataclass(frozen=True)
class ClipTerms:
    """The terms that are added to the losses of the judges.

    Attributes:
        motion: Weight of the motion term; 0 for none.
        motion_target: Motion from which on the term gives no gradient; None for no limit.
        repulsion: Weight of the similarity of clips of one prompt; 0 for none.
        clips_per_prompt: Number of clips of each prompt, neighbours in the batch.
    """

    motion: float = 0.0
    motion_target: float | None = None
    repulsion: float = 0.0
    clips_per_prompt: int = 1

    @property
    def labels(self) -> list[str]:
        """Names in metrics of the active terms."""
        return [name for name in ("motion_term", "likeness") if self.weight(name)]

    def weight(self, name: str) -> float:
        """Return the weight of a term by its name in metrics."""
        return {"motion_term": self.motion, "likeness": self.repulsion}[name]


def steady_motion(frames: Tensor) -> Tensor:
    """Measure motion without counting flicker (`rewards.kinds.motion.motion_energy`).

    Args:
        frames: `(b, f, 3, H, W)` in [0, 1], f at least 5, H and W at least 4.

    Returns:
        `(b,)`, differentiable; 0 for a still clip.

    Raises:
        TuningError: There are fewer frames.
    """
    if frames.shape[1] < FEWEST_FRAMES:
        raise TuningError(
            f"the motion term needs {FEWEST_FRAMES} neighbouring frames, but {frames.shape[1]} are "
            "decoded; let a judge see more (rewards.*.frames, train.decoded_latents)"
        )
    return motion_energy(frames)


def likeness(features: Tensor, clips_per_prompt: int) -> Tensor:
    """Return the mean cosine of two clips of one prompt, over all pairs.

    Args:
        features: `(b, d)`, one feature vector per clip; clips of a prompt are neighbours.
        clips_per_prompt: N, at least 2; divides b.

    Returns:
        `(b / n,)` in [-1, 1], differentiable.
    """
    groups = F.normalize(features, dim=1).view(-1, clips_per_prompt, features.shape[1])
    products = groups @ groups.transpose(1, 2)
    pairs = clips_per_prompt * (clips_per_prompt - 1)
    return (products.sum(dim=(1, 2)) - clips_per_prompt) / pairs


def shortfall(values: Tensor, target: float | None) -> Tensor:
    """Return a term's loss: minus its mean, or the mean distance below a target."""
    return -values.mean() if target is None else torch.relu(target - values).mean()
