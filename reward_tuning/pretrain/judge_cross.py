"""How the embedded judges with cross-attention learn: to see, and then to compare.

A transformer of patches is slower than a convolution: from the usual initial weights (0.02) and
through its class token, shape was at chance after 300 steps. With weights of the size
1 / sqrt(inputs) and read from the mean of all tokens, 83 % of silhouettes were right after 150.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base_model.tiny.captions import draw_caption
from base_model.tiny.scenes import ATTRIBUTES, Scene
from base_model.training.loop import python_random
from reward_tuning.pretrain.degradations import jitter
from reward_tuning.pretrain.judge_clip import Student, normalised, silhouettes
from reward_tuning.pretrain.judge_configs import JudgeRun
from reward_tuning.pretrain.judge_data import VISIBLE, attribute_caption, draw_frames, draw_pairs

EyesFn = Callable[[Tensor], Tensor]
"""``(n, 3, 64, 64)`` normalised pixels -> ``(n, tokens, d)``."""

ScoreFn = Callable[[Tensor, Sequence[str]], Tensor]
"""``(n, tokens, d)`` and n texts -> ``(n,)`` scores."""

BATCH = 32
PAIRS = 16
WRONG = 2
"""Captions a frame that are wrong in one word, beside the right one."""

HEAD_WEIGHTS = dict.fromkeys(VISIBLE, 0.3) | {"shape": 1.0}
"""Of each attribute's cross-entropy; shape is learnt last."""


@dataclass(frozen=True)
class Lesson:
    """What a judge sees before it reads any caption.

    Attributes:
        silhouettes: steps that show silhouettes only.
        faded: step from which real frames are shown; in between, one turns into the other.
        steps: of the whole lesson.
    """

    silhouettes: int
    faded: int
    steps: int

    def real(self, step: int) -> float:
        """Share of the real frame at a step, 0 to 1."""
        if step >= self.faded:
            return 1.0
        return max(0.0, (step - self.silhouettes) / (self.faded - self.silhouettes))


def train_cross_judge(
    run: JudgeRun, model: nn.Module, eyes: EyesFn, score: ScoreFn, first: Lesson
) -> None:
    """Train a judge in place: a lesson on attributes, then captions and preference pairs.

    Of three captions the frame's own has to score highest, and of two frames the better one. A
    cross-entropy on every visible attribute, from the mean token, goes with both parts.

    Args:
        run: names the judge.
        model: all of its networks, in evaluation mode: dropout would draw from elsewhere.
        eyes: its vision tower.
        score: what its text makes of what it sees; differentiable in the model's parameters.
        first: the lesson on the visible attributes.
    """
    width = eyes(torch.zeros(1, 3, 64, 64)).shape[-1]
    student = Student(model, width)

    def lesson(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        scenes, frames = draw_frames(BATCH, python_random(generator), "train")
        real = first.real(step)
        frames = torch.lerp(silhouettes(frames), frames, real)
        if real == 1.0:
            frames = jitter(frames, generator)
        with torch.autocast("cpu", torch.bfloat16):
            tokens = eyes(normalised(frames))
        return attributes(tokens, scenes, shape_only=real == 0.0)

    def compare(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rng = python_random(generator)
        scenes, frames = draw_frames(BATCH, rng, "train")
        pairs = draw_pairs(PAIRS, rng, generator)
        frames = torch.cat([frames, pairs.better, pairs.worse])
        captions = [text for scene in scenes for text in draw_choices(scene, rng)]
        with torch.autocast("cpu", torch.bfloat16):  # half the time
            tokens = eyes(normalised(jitter(frames, generator)))
            shown = tokens[:BATCH].repeat_interleave(1 + WRONG, dim=0)
            both = torch.cat([shown, tokens[BATCH:]])
            scores = score(both, [*captions, *pairs.prompts, *pairs.prompts]).float()
        loss, numbers = attributes(tokens[:BATCH], scenes)
        chosen = scores[: len(captions)].unflatten(0, (BATCH, 1 + WRONG))
        loss = loss + 2.0 * F.cross_entropy(chosen, torch.zeros(BATCH, dtype=torch.long))
        better, worse = scores[len(captions) :].chunk(2)
        loss = loss - F.logsigmoid(better - worse).mean()
        numbers["chosen"] = float((chosen.argmax(dim=1) == 0).float().mean())
        numbers["preferred"] = float((better > worse).float().mean())
        return loss, numbers

    def attributes(
        tokens: Tensor, scenes: Sequence[Scene], shape_only: bool = False
    ) -> tuple[Tensor, dict[str, float]]:
        losses, right = student.read(tokens.float().mean(dim=1), scenes)
        if shape_only:  # a silhouette has no colour and no background
            return losses["shape"], {"shape": right["shape"]}
        weighted = [HEAD_WEIGHTS[name] * loss for name, loss in losses.items()]
        return torch.stack(weighted).sum(), right

    run.train(student, lambda step, g: (lesson if step < first.steps else compare)(step, g))


def draw_choices(scene: Scene, rng: random.Random) -> list[str]:
    """A right caption of a scene and :data:`WRONG` that differ from it in one visible word.

    One in four is a short caption of some attributes, the changed one among them.
    """
    wrong, changed = [], []
    for name in rng.sample(VISIBLE, WRONG):
        word = rng.choice([word for word in ATTRIBUTES[name] if word != getattr(scene, name)])
        wrong.append(replace(scene, **{name: word}))
        changed.append(name)
    stated = [name for name in VISIBLE if name in changed or rng.random() < 0.5]
    short = rng.random() < 0.25
    # The same draw for each scene gives the same phrasing with another word.
    state = rng.getstate()
    texts = []
    for said in (scene, *wrong):
        rng.setstate(state)
        words = {name: getattr(said, name) for name in stated}
        texts.append(attribute_caption(words, rng) if short else draw_caption(said, rng))
    return texts


def large_weights(towers: nn.Module) -> None:
    """Start every product at 1 / sqrt(inputs), and positions where they can be told apart."""
    for module in towers.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    for name, parameter in towers.named_parameters():
        if "position_embedding" in name:
            nn.init.normal_(parameter, std=0.3)
