"""A judge of a recipe at work: the frames it sees, its scores, and its loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from reward_tuning.gradient.losses import best_mean, clip_losses, reward_loss, soft_min
from reward_tuning.judges.augmentation import Augmentation, grey, worst_nearby
from reward_tuning.schema.judge_parts import (
    spread,
)
from reward_tuning.seeds import derive_generator
from rewards import (
    FrameReward,
    LatentReward,
    Reward,
)
from rewards.core.base import CLIP_FPS, FrozenReward
from rewards.core.shared_towers import derived

GradientSource = Literal["exact", "group", "paired"]
"""Values of a judge's `gradient`: itself, or an estimate from scores (`gradient.estimates`)."""


@dataclass(frozen=True)
class FramedJudge:
    """A judge and the frames of a clip that it sees.

    Attributes:
        reward: The model that scores clips of any number of frames.
        label: Name in metrics and tables.
        positions: The judged frames, increasing, in [0, frames).
        weight: Factor of its loss; unused by a held-out judge.
        target: Score from which on its loss has no gradient; None for no such score.
        mean: Score that its loss counts as 0; without effect on scores.
        std: Number that its loss divides scores by; without effect on scores.
        augmentation: Random changes of the frames it sees in training; None for none.
        robust_radius: Distance, root mean square of a pixel, within which the lowest score counts
            in training; 0 for none.
        soft_min: Sharpness of the soft minimum over the frames' scores; None for their mean.
        best: Share of the frames, the best ones, whose mean score counts; None for all.
        random_frames: Number of the judged frames that a training batch sees; None for all.
        grayscale: Whether it sees clips in grey.
        prompt: Text that it reads in place of each clip's prompt; None for the prompt.
        clip_fps: Frame rate of the clips, of whose frames it may see a few; None for the
            generator's.
        gradient: Where the gradient of its loss comes from.
        stays: Whether its networks are on a device of their own and never rest elsewhere.
    """

    reward: Reward
    label: str
    positions: tuple[int, ...]
    weight: float = 1.0
    target: float | None = None
    mean: float = 0.0
    std: float = 1.0
    augmentation: Augmentation | None = None
    robust_radius: float = 0.0
    soft_min: float | None = None
    best: float | None = None
    random_frames: int | None = None
    grayscale: bool = False
    prompt: str | None = None
    clip_fps: float | None = None
    gradient: GradientSource = "exact"
    stays: bool = False

    def scores(self, frames: Tensor, prompts: Sequence[str], *, first: int = 0) -> Tensor:
        """Score clips.

        Args:
            frames: `(b, f, 3, H, W)` in [0, 1], a window of each clip.
            prompts: b texts.
            first: Position of the window's first frame in the clip.

        Returns:
            `(b,)` float32, differentiable.
        """
        return self._score_judged(self.judged(frames, first), prompts)

    def _score_judged(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score clips of the judged frames alone: `(b, n, 3, H, W)` -> `(b,)`."""
        return self.score_with(self._reward_at_rate(), frames, prompts)

    def score_with(self, reward: Reward, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score clips of the judged frames alone, `(b, n, 3, H, W)`, by its model at some rate.

        The scores are on the frames' device, wherever the model is.
        """
        if self.soft_min is None and self.best is None:
            return reward(self.shown(frames), self.texts(prompts)).to(frames.device)
        assert isinstance(reward, FrameReward)  # loading refuses others
        scores = reward.per_frame(self.shown(frames), self.texts(prompts))
        return self.over_frames(scores).to(frames.device)

    def shown(self, frames: Tensor) -> Tensor:
        """Return its frames `(b, n, 3, H, W)` as it sees them: unchanged, or in grey."""
        return grey(frames) if self.grayscale else frames

    def over_frames(self, scores: Tensor) -> Tensor:
        """Reduce the scores of its frames, `(b, n)`, to those of the clips, `(b,)`."""
        if self.best is not None:
            return best_mean(scores, self.best)
        return scores.mean(dim=1) if self.soft_min is None else soft_min(scores, self.soft_min)

    def _reward_at_rate(self) -> Reward:
        """Return its model for the rate at which the frames that it sees follow each other."""
        gaps = len(self.positions) - 1
        span = self.positions[-1] - self.positions[0]
        if span == gaps or not isinstance(self.reward, FrozenReward):
            return self.reward
        return self.reward.at_rate((self.clip_fps or CLIP_FPS) * gaps / span)

    def texts(self, prompts: Sequence[str]) -> list[str]:
        """Return the texts that it reads for clips with these prompts."""
        return list(prompts) if self.prompt is None else [self.prompt] * len(prompts)

    def loss(
        self,
        frames: Tensor,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        first: int = 0,
        clip_weights: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the training loss, on frames that this judge's options change.

        Args:
            frames: `(b, f, 3, H, W)` in [0, 1], a window of each clip.
            prompts: b texts.
            seeds: b seeds, from which the augmentation of each clip is drawn.
            first: Position of the window's first frame in the clip.
            clip_weights: `(b,)`, a factor of each clip's loss; None for 1.

        Returns:
            The loss, a scalar, and the scores `(b,)` it is made of, without gradient.
        """
        frames = self.judged(frames, first)
        if self.augmentation is not None:
            draws = [derive_generator(seed, "augmentation", self.label) for seed in seeds]
            frames = self.augmentation(frames, draws)
        if self.robust_radius:
            frames = worst_nearby(
                lambda x: self._score_judged(x, prompts), frames, self.robust_radius
            )
        scores = self._score_judged(frames, prompts)
        loss = reward_loss(
            scores,
            weight=self.weight,
            target=self.target,
            mean=self.mean,
            std=self.std,
            clip_weights=clip_weights,
        )
        return loss, scores.detach()

    def losses_of(self, scores: Tensor) -> Tensor:
        """Return the loss of each clip, `(b,)`, given their scores `(b,)`."""
        return clip_losses(
            scores, weight=self.weight, target=self.target, mean=self.mean, std=self.std
        )

    def within(self, frames: tuple[int, ...]) -> FramedJudge:
        """Return this judge for as many of these frames as it sees of a clip, spread evenly."""
        return replace(self, positions=spread(len(self.positions), frames))

    def drawn(self, draw: torch.Generator) -> FramedJudge:
        """Return this judge for the frames that a training batch sees, drawn if it asks for that.

        Args:
            draw: CPU generator to draw from.
        """
        if self.random_frames is None or self.random_frames >= len(self.positions):
            return self
        order = torch.randperm(len(self.positions), generator=draw)[: self.random_frames]
        return replace(self, positions=tuple(self.positions[i] for i in sorted(order.tolist())))

    def judged(self, frames: Tensor, first: int) -> Tensor:
        """Return the frames it sees, of a window of the clip that begins at position `first`."""
        wanted = [position - first for position in self.positions]
        if wanted == list(range(frames.shape[1])):
            return frames
        return derived(frames, ("of the window", *wanted), lambda: frames[:, wanted])


@dataclass(frozen=True)
class LatentJudge:
    """A judge of noisy latents: no frames, no decoder.

    Attributes:
        reward: The model that scores latents at any noise level.
        label: Name in metrics and tables.
        weight: Factor of its loss.
        target: Score from which on its loss has no gradient; None for no such score.
        mean: Score that its loss counts as 0; without effect on scores.
        std: Number that its loss divides scores by; without effect on scores.
        stays: As `FramedJudge.stays`.
    """

    reward: LatentReward
    label: str
    weight: float = 1.0
    target: float | None = None
    mean: float = 0.0
    std: float = 1.0
    stays: bool = False

    def scores(self, latents: Tensor, sigma: float, prompts: Sequence[str]) -> Tensor:
        """Score latents `(b, 16, t, h, w)` at a noise level: `(b,)` float32, differentiable."""
        return self.reward(latents, sigma, prompts).to(latents.device)

    def loss(self, latents: Tensor, sigma: float, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the training loss, a scalar, and the scores `(b,)` it is made of."""
        scores = self.scores(latents, sigma, prompts)
        loss = reward_loss(
            scores, weight=self.weight, target=self.target, mean=self.mean, std=self.std
        )
        return loss, scores.detach()


Judge = FramedJudge | LatentJudge


def judged_window(judges: Sequence[FramedJudge]) -> slice:
    """Return the frames to decode, from the first to the last that any judge sees."""
    positions = [position for judge in judges for position in judge.positions]
    return slice(min(positions), max(positions) + 1)
