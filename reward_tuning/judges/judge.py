"""The judges of a recipe: loaded, each with the frames it looks at and what its score counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from reward_tuning.errors import TuningError
from reward_tuning.gradient.losses import best_mean, reward_loss, soft_min
from reward_tuning.judges.augmentation import Augmentation, grey, worst_nearby
from reward_tuning.judges.shared_encoder import SharedEncoder
from reward_tuning.schema.judge_kinds import LatentSection
from reward_tuning.schema.judge_parts import (
    BestOverFrames,
    EachFrameSection,
    FramesSection,
    JudgeSection,
    RandomFrames,
    SoftMinOverFrames,
    TextSection,
    spread,
)
from reward_tuning.schema.judge_roles import FrameRewardSection, RewardSection
from rewards import (
    FrameReward,
    LatentReward,
    Reward,
    RewardError,
    load_latent_reward,
    load_reward,
)
from rewards.core.base import CLIP_FPS, FrozenReward
from rewards.core.shared_towers import TowerPool, derived


@dataclass(frozen=True)
class FramedJudge:
    """A judge and the frames of a clip that it sees.

    Attributes:
        reward: Scores clips of any number of frames.
        label: Name in metrics and tables.
        positions: The judged frames, increasing, in [0, frames).
        weight: Of its loss; without meaning for a held-out judge.
        target: Where its hinge bends; None for none.
        mean: Score that its loss counts as 0; without effect on scores.
        std: Number that its loss divides scores by; without effect on scores.
        augmentation: Of the frames it sees in training; None for none.
        robust_radius: Radius in pixels within which the worst score counts in training; 0 for none.
        soft_min: Sharpness of the soft minimum over frames; None for their mean.
        best: Share of the frames, the best ones, whose mean counts; None for all.
        random_frames: How many of the judged frames a batch in training sees; None for all.
        grayscale: Whether it sees clips in grey.
        prompt: What it reads in place of each clip's prompt; None for the prompt.
        clip_fps: Frames a second of the clips, of which it may see a few; None for the 8 of the
            generator.
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

    def scores(self, frames: Tensor, prompts: Sequence[str], *, first: int = 0) -> Tensor:
        """Score clips.

        Args:
            frames: `(b, f, 3, H, W)` in [0, 1]: a window of the clip.
            prompts: b texts.
            first: Position of the window's first frame in the clip.

        Returns:
            `(b,)` float32, differentiable.
        """
        return self._of_clips(self.judged(frames, first), prompts)

    def _of_clips(self, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """`(b,)` from the judged frames alone."""
        return self.by(self._at_shown_rate(), frames, prompts)

    def by(self, reward: Reward, frames: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score clips of judged frames alone, `(b, n, 3, H, W)`, by its reward at some rate."""
        if self.soft_min is None and self.best is None:
            return reward(self.shown(frames), self.texts(prompts))
        assert isinstance(reward, FrameReward)  # _loaded refuses others
        return self.over_frames(reward.per_frame(self.shown(frames), self.texts(prompts)))

    def shown(self, frames: Tensor) -> Tensor:
        """What it sees of its frames, `(b, n, 3, H, W)`: as they are, or in grey."""
        return grey(frames) if self.grayscale else frames

    def over_frames(self, scores: Tensor) -> Tensor:
        """From scores of its frames, `(b, n)`, to the clips', `(b,)`."""
        if self.best is not None:
            return best_mean(scores, self.best)
        return scores.mean(dim=1) if self.soft_min is None else soft_min(scores, self.soft_min)

    def _at_shown_rate(self) -> Reward:
        """The judge, for the rate at which the frames that it sees follow each other."""
        gaps = len(self.positions) - 1
        span = self.positions[-1] - self.positions[0]
        if span == gaps or not isinstance(self.reward, FrozenReward):
            return self.reward
        return self.reward.at_rate((self.clip_fps or CLIP_FPS) * gaps / span)

    def texts(self, prompts: Sequence[str]) -> list[str]:
        """What it reads of clips with these prompts."""
        return list(prompts) if self.prompt is None else [self.prompt] * len(prompts)

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
        if self.robust_radius:
            frames = worst_nearby(lambda x: self._of_clips(x, prompts), frames, self.robust_radius)
        scores = self._of_clips(frames, prompts)
        loss = reward_loss(
            scores,
            weight=self.weight,
            target=self.target,
            mean=self.mean,
            std=self.std,
            clip_weights=clip_weights,
        )
        return loss, scores.detach()

    def within(self, frames: tuple[int, ...]) -> FramedJudge:
        """The same judge for as many of these frames as it sees of a clip, spread evenly."""
        return replace(self, positions=spread(len(self.positions), frames))

    def drawn(self, draw: torch.Generator) -> FramedJudge:
        """The same judge for the frames that a batch in training sees: drawn, where it wants so.

        Args:
            draw: CPU generator.
        """
        if self.random_frames is None or self.random_frames >= len(self.positions):
            return self
        order = torch.randperm(len(self.positions), generator=draw)[: self.random_frames]
        return replace(self, positions=tuple(self.positions[i] for i in sorted(order.tolist())))

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
        mean: Score that its loss counts as 0; without effect on scores.
        std: Number that its loss divides scores by; without effect on scores.
    """

    reward: LatentReward
    label: str
    weight: float = 1.0
    target: float | None = None
    mean: float = 0.0
    std: float = 1.0

    def scores(self, latents: Tensor, sigma: float, prompts: Sequence[str]) -> Tensor:
        """Score latents `(b, 16, t, h, w)` at a noise level: `(b,)` float32, differentiable."""
        return self.reward(latents, sigma, prompts)

    def loss(self, latents: Tensor, sigma: float, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The loss in training, a scalar, and the scores `(b,)` it was made of."""
        scores = self.scores(latents, sigma, prompts)
        loss = reward_loss(
            scores, weight=self.weight, target=self.target, mean=self.mean, std=self.std
        )
        return loss, scores.detach()


Judge = FramedJudge | LatentJudge


def load_judges(
    sections: Sequence[JudgeSection],
    frames: int,
    device: torch.device,
    shared: SharedEncoder | None = None,
) -> list[Judge]:
    """Load the judges of a recipe; equal towers among them are held once.

    Args:
        sections: Resolved, as `load_recipe` leaves them.
        frames: Of a clip.
        device: Where they run.
        shared: The generator's text encoder on that device, for judges that are it.

    Raises:
        RewardError: A file is missing, damaged or of another kind.
        TuningError: A judge that is only for the evaluation stands among the rewards, or one is
            the generator's text encoder and there is none, or none that can answer.
    """
    pool = TowerPool()
    return [
        _loaded(section, _options(section, shared), frames, device, pool) for section in sections
    ]


def _options(section: JudgeSection, shared: SharedEncoder | None) -> dict[str, Any]:
    """What the judge's loader is given."""
    options = section.loader_options()
    if section.of_generator:
        if shared is None:
            raise TuningError(
                f"the judge {section.label} has checkpoint: generator, and here is no generator "
                "whose text encoder it could be. Give the generator's folder instead (./generator "
                "if it is called so), or a Qwen2-VL's, such as tiny/qwen-critic"
            )
        options |= {"checkpoint": shared.folder, "model": shared.encoder.text_encoder}
    return options


def _loaded(
    section: JudgeSection,
    options: dict[str, Any],
    frames: int,
    device: torch.device,
    pool: TowerPool,
) -> Judge:
    if "dtype" in options:
        options["dtype"] = getattr(torch, options["dtype"])
    if isinstance(section, LatentSection):
        latent = load_latent_reward(**options, device=device, name=section.label)
        judge = LatentJudge(latent, section.label)
        return replace(judge, **_terms(section)) if isinstance(section, RewardSection) else judge
    assert isinstance(section, FramesSection), section.kind
    try:
        reward = load_reward(section.kind, **options, device=device, name=section.label, pool=pool)
    except RewardError as error:
        if not section.of_generator:
            raise
        raise TuningError(
            f"the judge {section.label} has checkpoint: generator, and the text encoder of "
            f"{options['checkpoint']} cannot be it: {error}"
        ) from error
    prompt = section.prompt if isinstance(section, TextSection) else None
    if prompt is not None:
        _read_alone(reward, prompt, section.label)
    framed = FramedJudge(
        reward,
        section.label,
        tuple(section.judged_frames(frames)),
        grayscale=section.grayscale,
        prompt=prompt,
        clip_fps=section.told_rate,
    )
    if isinstance(section, EachFrameSection):
        framed = replace(framed, **_over_frames(section, reward))
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
        robust_radius=section.robust_radius,
    )


def _read_alone(reward: FrozenReward, prompt: str, label: str) -> None:
    """Let a judge read one text for every clip, so that clips need no prompts for it.

    Raises:
        TuningError: it reads no text, or not to the end of this one.
    """
    if not reward.reads_text:
        raise TuningError(
            f"the judge {label} reads no text, so its prompt {prompt!r} has no effect; remove it"
        )
    if reward.truncated([prompt]):
        raise TuningError(
            f"the judge {label} reads {reward.context_length} tokens, and its prompt is longer: "
            f"{prompt!r}; shorten it"
        )
    reward.reads_text = False


def _over_frames(section: EachFrameSection, reward: Reward) -> dict[str, Any]:
    """How the scores of frames become one of the clip."""
    over = section.over_frames
    if isinstance(over, SoftMinOverFrames | BestOverFrames) and not isinstance(reward, FrameReward):
        raise TuningError(
            f"the judge {section.label} scores whole clips, so there are no frames' scores for "
            f"over_frames: {over.kind}; remove it, or derive the class from FrameReward"
        )
    match over:
        case SoftMinOverFrames(sharpness=sharpness):
            return {"soft_min": sharpness}
        case BestOverFrames(share=share):
            return {"best": share}
        case RandomFrames(count=count):
            return {"random_frames": count}
    return {}


def _terms(section: RewardSection) -> dict[str, Any]:
    """What training puts on top of any judge."""
    return section.model_dump(include={"weight", "target", "mean", "std"})


def judged_window(judges: Sequence[FramedJudge]) -> slice:
    """The frames that must be decoded, from the first to the last that any judge sees."""
    positions = [position for judge in judges for position in judge.positions]
    return slice(min(positions), max(positions) + 1)
