"""The judges of a recipe: loaded, each with the frames it looks at and what its score counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.judge_sections import (
    FrameRewardSection,
    FramesSection,
    JudgeSection,
    LatentSection,
    RewardSection,
    spread,
)
from reward_tuning.losses import reward_loss
from reward_tuning.pixels import Augmentation, worst_nearby
from rewards import LatentReward, Reward, load_latent_reward, load_reward
from rewards.shared_towers import TowerPool, derived


@dataclass(frozen=True)
class FramedJudge:
    """A judge and the frames of a clip that it sees.

    Attributes:
        reward: Scores clips of any number of frames.
        label: Name in metrics and tables.
        positions: The judged frames, increasing, in [0, frames).
        weight: Of its loss; without meaning for a held-out judge.
        target: Where its hinge bends; None for none.
        unit: What its loss is measured in; without effect on scores.
        augmentation: Of the frames it sees in training; None for none.
        flatten: Radius in pixels within which the worst score counts in training; 0 for none.
    """

    reward: Reward
    label: str
    positions: tuple[int, ...]
    weight: float = 1.0
    target: float | None = None
    unit: float = 1.0
    augmentation: Augmentation | None = None
    flatten: float = 0.0

    def scores(self, frames: Tensor, prompts: Sequence[str], *, first: int = 0) -> Tensor:
        """Score clips.

        Args:
            frames: `(b, f, 3, H, W)` in [0, 1]: a window of the clip.
            prompts: b texts.
            first: Position of the window's first frame in the clip.

        Returns:
            `(b,)` float32, differentiable.
        """
        return self.reward(self.judged(frames, first), prompts)

    def loss(
        self,
        frames: Tensor,
        prompts: Sequence[str],
        draw: torch.Generator,
        *,
        first: int = 0,
        clip_weights: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The loss in training, on frames changed as this judge's options want it.

        Args:
            frames: As for `scores`.
            prompts: b texts.
            draw: CPU generator of the augmentation.
            first: As for `scores`.
            clip_weights: `(b,)`, a factor of each clip's loss; None for 1.

        Returns:
            The loss, a scalar, and the scores `(b,)` it was made of, without gradient.
        """
        frames = self.judged(frames, first)
        if self.augmentation is not None:
            frames = self.augmentation(frames, draw)
        if self.flatten:
            frames = worst_nearby(lambda x: self.reward(x, prompts), frames, self.flatten)
        scores = self.reward(frames, prompts)
        loss = reward_loss(
            scores, weight=self.weight / self.unit, target=self.target, clip_weights=clip_weights
        )
        return loss, scores.detach()

    def within(self, frames: tuple[int, ...]) -> FramedJudge:
        """The same judge for as many of these frames as it sees of a clip, spread evenly."""
        return replace(self, positions=spread(len(self.positions), frames))

    def judged(self, frames: Tensor, first: int) -> Tensor:
        """The frames it sees, of a window of the clip that begins at position `first`."""
        wanted = [position - first for position in self.positions]
        if wanted == list(range(frames.shape[1])):
            return frames
        return derived(frames, ("of the window", *wanted), lambda: frames[:, wanted])


@dataclass(frozen=True)
class LatentJudge:
    """A judge of noisy latents: no frames, no decoder.

    Attributes:
        reward: Scores latents at any noise level.
        label: Name in metrics and tables.
        weight: Of its loss.
        target: Where its hinge bends; None for none.
        unit: What its loss is measured in; without effect on scores.
    """

    reward: LatentReward
    label: str
    weight: float = 1.0
    target: float | None = None
    unit: float = 1.0

    def scores(self, latents: Tensor, sigma: float, prompts: Sequence[str]) -> Tensor:
        """Score latents `(b, 16, t, h, w)` at a noise level: `(b,)` float32, differentiable."""
        return self.reward(latents, sigma, prompts)

    def loss(self, latents: Tensor, sigma: float, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The loss in training, a scalar, and the scores `(b,)` it was made of."""
        scores = self.scores(latents, sigma, prompts)
        loss = reward_loss(scores, weight=self.weight / self.unit, target=self.target)
        return loss, scores.detach()


Judge = FramedJudge | LatentJudge


def load_judges(sections: Sequence[JudgeSection], frames: int, device: torch.device) -> list[Judge]:
    """Load the judges of a recipe; equal towers among them are held once.

    Args:
        sections: Resolved, as `load_recipe` leaves them.
        frames: Of a clip.
        device: Where they run.

    Raises:
        RewardError: A file is missing, damaged or of another kind.
        TuningError: A judge that is only for the evaluation stands among the rewards.
    """
    pool = TowerPool()
    return [_loaded(section, frames, device, pool) for section in sections]


def _loaded(section: JudgeSection, frames: int, device: torch.device, pool: TowerPool) -> Judge:
    options = section.loader_options()
    if "dtype" in options:
        options["dtype"] = getattr(torch, options["dtype"])
    if isinstance(section, LatentSection):
        latent = load_latent_reward(**options, device=device, name=section.label)
        judge = LatentJudge(latent, section.label)
        return replace(judge, **_terms(section)) if isinstance(section, RewardSection) else judge
    assert isinstance(section, FramesSection), section.kind
    reward = load_reward(section.kind, **options, device=device, name=section.label, pool=pool)
    framed = FramedJudge(reward, section.label, tuple(section.judged_frames(frames)))
    if not isinstance(section, FrameRewardSection):
        return framed
    if reward.evaluation_only:
        raise TuningError(
            f"rewards: the judge {section.label} is for the evaluation only: it measures, and its "
            "score has no gradient to train on; name it under evaluation.held_out_rewards"
        )
    augment = section.augmentation
    return replace(
        framed,
        **_terms(section),
        augmentation=None if augment is None else Augmentation(**augment.model_dump()),
        flatten=section.flatten,
    )


def _terms(section: RewardSection) -> dict[str, Any]:
    """What training puts on top of any judge."""
    return section.model_dump(include={"weight", "target", "unit"})


def judged_window(judges: Sequence[FramedJudge]) -> slice:
    """The frames that must be decoded, from the first to the last that any judge sees."""
    positions = [position for judge in judges for position in judge.positions]
    return slice(min(positions), max(positions) + 1)
