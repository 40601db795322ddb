"""The judges of a recipe: loaded, each with the frames it looks at and what its score counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reward_tuning.sections import HeldOutSection, RewardSection
from rewards import Relative, Reward, load_reward


@dataclass(frozen=True)
class FramedJudge:
    """A judge and the frames of a clip that it sees.

    Attributes:
        reward: Scores clips of any number of frames.
        label: Name in metrics and tables.
        positions: The judged frames, increasing, in [0, frames).
        weight: Of its loss; without meaning for a held-out judge.
        target: Where its hinge bends; None for none.
    """

    reward: Reward
    label: str
    positions: tuple[int, ...]
    weight: float = 1.0
    target: float | None = None

    def scores(self, frames: Tensor, prompts: Sequence[str], *, first: int = 0) -> Tensor:
        """Score clips.

        Args:
            frames: `(b, f, 3, H, W)` in [0, 1]: a window of the clip.
            prompts: b texts.
            first: Position of the window's first frame in the clip.

        Returns:
            `(b,)` float32, differentiable.
        """
        wanted = [position - first for position in self.positions]
        if wanted != list(range(frames.shape[1])):
            frames = frames[:, wanted]
        return self.reward(frames, prompts)


def load_judges(
    sections: Sequence[RewardSection | HeldOutSection], frames: int, device: torch.device
) -> list[FramedJudge]:
    """Load the judges of a recipe.

    Args:
        sections: Resolved, as `load_recipe` leaves them.
        frames: Of a clip.
        device: Where they run.

    Raises:
        RewardError: A file is missing, damaged or of another kind.
    """
    judges = []
    for section in sections:
        relative = None
        if isinstance(section, RewardSection) and section.relative is not None:
            relative = Relative(**section.relative.model_dump())
        reward = load_reward(
            section.kind,
            section.checkpoint,
            device=device,
            dtype=getattr(torch, section.dtype),
            name=section.label,
            chunk=section.chunk,
            architecture=section.architecture,
            tower=section.tower,
            gradient_checkpointing=section.gradient_checkpointing,
            relative=relative,
        )
        judge = FramedJudge(reward, section.label, tuple(section.judged_frames(frames)))
        if isinstance(section, RewardSection):
            judge = replace(judge, weight=section.weight, target=section.target)
        judges.append(judge)
    return judges


def judged_window(judges: Sequence[FramedJudge]) -> slice:
    """The frames that must be decoded, from the first to the last that any judge sees."""
    positions = [position for judge in judges for position in judge.positions]
    return slice(min(positions), max(positions) + 1)
