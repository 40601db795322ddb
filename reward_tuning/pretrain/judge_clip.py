"""Train the embedded CLIPs and, from one of them, the preference judge.

A contrastive loss alone never learned shape: after 700 steps of 128 pairs colour, background and
size were right on every held-out frame and shape at chance (0.25), because the three easy
attributes drown its gradient; a cross-entropy on shape alone stayed at chance for hundreds of steps
of 32. On white silhouettes the same tower reads 96 % of shapes after 60 steps. A CLIP therefore
starts with a lesson on shape: silhouettes that fade into the real frames, under a head that is
discarded afterwards. Having learned to use chroma alone, a tower was still at chance on the grey
backgrounds after 600 steps of captions: captions therefore come with such a head on every
attribute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base_model.tiny.scenes import ATTRIBUTES, Scene
from base_model.training.loop import python_random
from reward_tuning.pretrain.degradations import jitter
from reward_tuning.pretrain.judge_configs import (
    CLIP,
    CLIP_PREPROCESS,
    HPS_PREPROCESS,
    JudgeRun,
    clip_metadata,
    save_judge,
    seed_weights,
    small_tokenizer,
    trained_clip,
)
from reward_tuning.pretrain.judge_data import (
    VISIBLE,
    draw_captioned,
    draw_frames,
    draw_pairs,
)
from rewards.clip_towers.open_clip_models import Architecture, build_model


@dataclass(frozen=True)
class Lesson:
    """A lesson on shape, before any captions.

    Attributes:
        silhouettes: Number of steps with silhouettes only.
        faded: First step with real frames only.
        steps: Length of the lesson.
        weight: Weight of shape's cross-entropy during captions; the other attributes have 0.5.
    """

    silhouettes: int = 100
    faded: int = 350
    steps: int = 400
    weight: float = 0.5


LESSON = Lesson()
LESSON_BATCH = 32
BATCH = 64
LARGEST_SCALE = 50.0
"""Largest `exp(logit_scale)`; CLIP has 100."""

PAIRS = 40
PREFERENCE_TEMPERATURE = 20.0
"""Bradley-Terry: a cosine higher by 0.05 means a preference with probability 0.73."""

ATTACK = 1.5
"""Largest length of the perturbation in preference training, over 3 x 64 x 64 pixels (0.014 per
pixel). It smooths the score in the directions in which a reward run would climb."""


def train_clip(
    run: JudgeRun, architecture: Architecture, preferences_from: int | None = None
) -> Path:
    """Train a CLIP: a lesson on shape, then contrastive training.

    In the contrastive part every frame that shows what a caption states is a positive; a
    cross-entropy on all visible attributes is added.

    Args:
        run: Training run of the judge.
        architecture: Architecture of the CLIP.
        preferences_from: First step with preference pairs in addition to captions. With captions
            alone a CLIP reads every attribute but prefers a light blur to none.
    """
    model = taught_clip(run, architecture, preferences_from)
    metadata = clip_metadata("clip", architecture, CLIP_PREPROCESS)
    return save_judge(run, model.state_dict(), metadata)


def taught_clip(
    run: JudgeRun,
    architecture: Architecture,
    preferences_from: int | None = None,
    lesson: Lesson | None = None,
    tokenizer: Callable[[Sequence[str]], Tensor] | None = None,
) -> Any:
    """Train the CLIP of `train_clip` without saving it.

    Args:
        run: Training run of the judge.
        architecture: Architecture of the CLIP.
        preferences_from: First step with preference pairs in addition to captions.
        lesson: Lesson on shape; None takes that of the residual towers.
        tokenizer: Tokenizer; None takes open_clip's on the small vocabulary.
    """
    course = lesson or LESSON
    tokenizer = tokenizer or small_tokenizer(run.out_dir, architecture)
    seed_weights(run)
    model = build_model(architecture, torch.device("cpu"))
    student = Student(model, architecture["embed_dim"]).train()
    student.to(memory_format=torch.channels_last)  # 1.45 times as fast on one core

    def on_shape(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rng = python_random(generator)
        scenes, frames = draw_frames(LESSON_BATCH, rng, "train")
        fading = course.faded - course.silhouettes
        real = min(1.0, max(0.0, (step - course.silhouettes) / fading))
        frames = torch.lerp(silhouettes(frames), frames, real)
        if real == 1.0:
            frames = jitter(frames, generator)
        losses, right = student.read(model.encode_image(normalised(frames)), scenes)
        return losses["shape"], {"shape": right["shape"]}

    def contrast(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rng = python_random(generator)
        batch = draw_captioned(BATCH, rng, generator)
        frames, captions, pairs = batch.frames, batch.captions, None
        if preferences_from is not None and step >= preferences_from:
            pairs = draw_pairs(PAIRS, rng, generator)
            frames = torch.cat([frames, pairs.better, pairs.worse])
            captions = [*captions, *pairs.prompts]
        features = model.encode_image(normalised(jitter(frames, generator)))
        texts = model.encode_text(tokenizer(captions), normalize=True)
        images = F.normalize(features, dim=-1)
        logits = model.logit_scale.exp().clamp(max=LARGEST_SCALE) * images[:BATCH] @ texts[:BATCH].T
        best = logits.argmax(dim=0)
        found = (batch.match.gather(0, best[None])[0] > 0.5).float().mean()
        losses, right = student.read(features[:BATCH], batch.scenes)
        loss = contrastive_loss(logits, batch.match) + read_loss(losses, course)
        numbers = {"retrieved": float(found), **right}
        if pairs is not None:
            preference, numbers["preferred"] = preference_loss(images[BATCH:], texts[BATCH:])
            loss = loss + preference
        return loss, numbers

    run.train(student, lambda step, g: (on_shape if step < course.steps else contrast)(step, g))
    return model


def read_loss(losses: Mapping[str, Tensor], lesson: Lesson) -> Tensor:
    """Sum the heads' cross-entropies: shape with the lesson's weight, the others with 0.5."""
    total = torch.zeros(())
    for name, loss in losses.items():
        total = total + (lesson.weight if name == "shape" else 0.5) * loss
    return total


def silhouettes(frames: Tensor) -> Tensor:
    """Return white shapes on black: each frame's chroma over its maximum, in three channels.

    Args:
        frames: `(n, 3, H, W)` in [0, 1], renders without degradation.
    """
    chroma = frames.amax(dim=1, keepdim=True) - frames.amin(dim=1, keepdim=True)
    return (chroma / chroma.amax(dim=(2, 3), keepdim=True)).expand_as(frames)


class Student(nn.Module):
    """A CLIP with a linear head for each attribute on its image features, for training only."""

    def __init__(self, model: nn.Module, features: int, names: Sequence[str] = VISIBLE) -> None:
        super().__init__()
        self.model = model
        heads = {name: nn.Linear(features, len(ATTRIBUTES[name])) for name in names}
        self.heads = nn.ModuleDict(heads)

    def read(
        self, features: Tensor, scenes: Sequence[Scene]
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Return the cross-entropy of every attribute with a head.

        Args:
            features: `(n, d)`, not normalised.
            scenes: Scenes of the n frames or clips.

        Returns:
            By attribute: the loss, and the share of rows whose attribute is right.
        """
        losses, right = {}, {}
        for name, head in self.heads.items():
            words = ATTRIBUTES[name]
            truth = torch.tensor([words.index(getattr(scene, name)) for scene in scenes])
            logits = head(features)
            losses[name] = F.cross_entropy(logits, truth)
            right[name] = float((logits.argmax(dim=1) == truth).float().mean())
        return losses, right


def train_hps(run: JudgeRun) -> Path:
    """Train preferences from `clip`: Bradley-Terry on pairs, under a small adversarial step.

    Batch statistics stay those of `clip`, so that scores in training equal scores in use.
    """
    tokenizer = small_tokenizer(run.out_dir, CLIP)
    model = build_model(CLIP, torch.device("cpu")).eval()
    model.load_state_dict(trained_clip(run.out_dir))
    model.to(memory_format=torch.channels_last)

    def loss_of(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rng = python_random(generator)
        pairs = draw_pairs(PAIRS, rng, generator)
        texts = model.encode_text(tokenizer(pairs.prompts), normalize=True)
        frames = jitter(torch.cat([pairs.better, pairs.worse]), generator)
        length = ATTACK * torch.rand(len(frames), generator=generator)
        frames = attacked(model, frames, texts.detach(), length)
        images = model.encode_image(normalised(frames), normalize=True)
        preference, preferred = preference_loss(images, texts)
        # The better frames must still match their own prompt among the others.
        logits = PREFERENCE_TEMPERATURE * images[:PAIRS] @ texts.T
        align = contrastive_loss(logits, pairs.same)
        return preference + 0.4 * align, {"preferred": preferred, "align": float(align.detach())}

    run.train(model, loss_of)
    return save_judge(run, model.state_dict(), clip_metadata("hps", CLIP, HPS_PREPROCESS))


def normalised(frames: Tensor) -> Tensor:
    """Preprocess `(n, 3, 64, 64)` in [0, 1] for the towers; both preprocesses agree here."""
    return CLIP_PREPROCESS(frames).contiguous(memory_format=torch.channels_last)


def contrastive_loss(logits: Tensor, match: Tensor) -> Tensor:
    """Return CLIP's loss with several positives: cross-entropy with targets from `match`.

    Args:
        logits: `(n, m)`, frames by captions.
        match: `(n, m)` in [0, 1]; rows and columns without a match do not count.
    """
    losses = []
    for scores, targets in ((logits, match), (logits.T, match.T)):
        total = targets.sum(dim=1, keepdim=True)
        rows = total[:, 0] > 0
        goal = targets[rows] / total[rows]
        losses.append(-(goal * F.log_softmax(scores[rows], dim=1)).sum(dim=1).mean())
    return (losses[0] + losses[1]) / 2


def preference_loss(images: Tensor, texts: Tensor) -> tuple[Tensor, float]:
    """Return the Bradley-Terry loss on cosines.

    Args:
        images: `(2 n, d)` normalised features: the better frames, then the worse ones.
        texts: `(n, d)` normalised features of the prompts.

    Returns:
        The loss, and the share of pairs in which the better frame is preferred.
    """
    better, worse = ((part * texts).sum(dim=-1) for part in images.chunk(2))
    margin = PREFERENCE_TEMPERATURE * (better - worse)
    return -F.logsigmoid(margin).mean(), float((margin > 0).float().mean())


def attacked(model: Any, frames: Tensor, texts: Tensor, length: Tensor) -> Tensor:
    """Move each frame a little in the direction that misleads the judge most.

    Args:
        model: CLIP in evaluation mode.
        frames: `(2 n, 3, H, W)`: the better ones, then the worse ones.
        texts: `(n, d)`, without gradient.
        length: `(2 n,)` Euclidean length of each move.

    Returns:
        `(2 n, 3, H, W)` in [0, 1], detached.
    """
    frames = frames.detach().requires_grad_()
    better, worse = model.encode_image(normalised(frames), normalize=True).chunk(2)
    misleading = ((worse - better) * texts).sum()
    (gradient,) = torch.autograd.grad(misleading, frames)
    size = gradient.flatten(1).norm(dim=1).clamp(min=1e-12)
    return (frames + gradient * (length / size)[:, None, None, None]).detach().clamp(0, 1)
