"""Train the embedded judges with cross-attention: first to see, then to compare.

A transformer of patches learns more slowly than a convolution: from the usual initial weights
(0.02) and through its class token, shape was at chance after 300 steps. With weights of size 1 /
sqrt(inputs), read from the mean of all tokens, 83 % of silhouettes were right after 150.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base_model.tiny.captions import draw_caption
from base_model.tiny.scenes import ATTRIBUTES, Scene
from base_model.training.loop import Schedule, python_random
from reward_tuning.pretrain.degradations import jitter
from reward_tuning.pretrain.judge_clip import (
    Student,
    contrastive_loss,
    normalised,
    silhouettes,
)
from reward_tuning.pretrain.judge_configs import JudgeRun
from reward_tuning.pretrain.judge_data import VISIBLE, attribute_caption, draw_frames, draw_pairs

EyesFn = Callable[[Tensor], Tensor]
"""`(n, 3, 64, 64)` normalised pixels -> `(n, tokens, d)`."""

ScoreFn = Callable[[Tensor, Sequence[str]], Tensor]
"""`(n, tokens, d)` and n texts -> `(n,)` scores."""

AlignFn = Callable[[Tensor, Sequence[str]], Tensor]
"""`(n, tokens, d)` and m texts -> `(n, m)` logits, each side encoded alone."""

EyesName = Literal["cross-eyes", "mps-eyes"]
"""Stages of the vision towers of ImageReward and of MPS."""

EYES_SCHEDULE = Schedule(steps=1200, learning_rate=2.5e-3, optimiser="muon", ema_decay=0.0)

SILHOUETTES = 150
"""Steps of that stage with silhouettes only."""

FADED = 700
"""First step with real frames only."""

BATCH = 32
"""Frames per step in that stage."""

FRAMES = 16
PAIRS = 12
WRONG = 2
"""Captions of each frame with one wrong word, in addition to the right one."""

HEAD_WEIGHTS = dict.fromkeys(VISIBLE, 0.3) | {"shape": 1.5}
"""Weights of the attributes' cross-entropies; shape is learned last."""


def learn_to_see(run: JudgeRun, stage: EyesName, towers: nn.Module, eyes: EyesFn) -> None:
    """Train a vision transformer in place to read the visible attributes, unless it is trained.

    Shape is learned from silhouettes that fade into the real frames. The stage has its own
    checkpoint and log in the training folder.

    Args:
        run: Training run, of which folder and seed are used, but not the schedule.
        stage: Name of the stage.
        towers: Module to train; it gets `large_weights` first.
        eyes: The same module as a function of pixels.
    """
    large_weights(towers)
    with torch.no_grad():
        width = eyes(torch.zeros(1, 3, 64, 64)).shape[-1]
    readers = Readers(towers, width)

    def lesson(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        scenes, frames = draw_frames(BATCH, python_random(generator), "train")
        real = min(1.0, max(0.0, (step - SILHOUETTES) / (FADED - SILHOUETTES)))
        frames = torch.lerp(silhouettes(frames), frames, real)
        if real == 1.0:
            frames = jitter(frames, generator)
        with torch.autocast("cpu", torch.bfloat16):
            tokens = eyes(normalised(frames))
        return readers.read(tokens, scenes, ("shape",) if real == 0.0 else VISIBLE)

    replace(run, name=stage, schedule=EYES_SCHEDULE).train(readers, lesson)


class Readers(nn.Module):
    """A vision tower with heads on its mean token and on its class token, for training only."""

    def __init__(self, model: nn.Module, width: int) -> None:
        super().__init__()
        self.model = model
        self.mean, self.first = (Student(nn.Identity(), width) for _ in range(2))

    def read(
        self, tokens: Tensor, scenes: Sequence[Scene], names: Sequence[str] = VISIBLE
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the cross-entropy of attributes from both tokens.

        Args:
            tokens: `(n, tokens, d)`, class token first.
            scenes: Scenes of the n frames.
            names: Attributes that count: a silhouette has no colour and no background.

        Returns:
            The loss, and by attribute the share that the mean token reads correctly.
        """
        tokens = tokens.float()
        losses, right = self.mean.read(tokens.mean(dim=1), scenes)
        others, _ = self.first.read(tokens[:, 0], scenes)
        weighted = [HEAD_WEIGHTS[name] * (losses[name] + 0.5 * others[name]) for name in names]
        return torch.stack(weighted).sum(), {name: right[name] for name in names}


def train_cross_judge(
    run: JudgeRun, model: nn.Module, eyes: EyesFn, score: ScoreFn, align: AlignFn
) -> None:
    """Train a judge with a trained vision tower to compare, in place.

    Of three captions the frame's own must score highest, and of two frames the better one. Before
    the cross-attention the features of frame and text are aligned as in CLIP, like in the training
    of BLIP.

    Args:
        run: Training run of the judge.
        model: All networks of the judge, in evaluation mode: dropout would use another generator.
        eyes: Vision tower.
        score: Function from tokens and texts to scores; differentiable in the model's parameters.
        align: Function that compares frames and texts before the cross-attention.
    """
    readers = Readers(model, eyes(torch.zeros(1, 3, 64, 64)).shape[-1])

    def compare(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rng = python_random(generator)
        scenes, frames = draw_frames(FRAMES, rng, "train")
        pairs = draw_pairs(PAIRS, rng, generator)
        frames = torch.cat([frames, pairs.better, pairs.worse])
        captions = [text for scene in scenes for text in draw_choices(scene, rng)]
        own = [draw_caption(scene, rng) for scene in scenes]
        looks = [[getattr(scene, name) for name in VISIBLE] for scene in scenes]
        match = torch.tensor([[float(a == b) for b in looks] for a in looks])
        with torch.autocast("cpu", torch.bfloat16):  # half the time
            tokens = eyes(normalised(jitter(frames, generator)))
            shown = tokens[:FRAMES].repeat_interleave(1 + WRONG, dim=0)
            both = torch.cat([shown, tokens[FRAMES:]])
            scores = score(both, [*captions, *pairs.prompts, *pairs.prompts]).float()
            logits = align(tokens[:FRAMES], own).float()
        loss, numbers = readers.read(tokens[:FRAMES], scenes)
        loss = loss + contrastive_loss(logits, match)
        chosen = scores[: len(captions)].unflatten(0, (FRAMES, 1 + WRONG))
        loss = loss + 2.0 * F.cross_entropy(chosen, torch.zeros(FRAMES, dtype=torch.long))
        better, worse = scores[len(captions) :].chunk(2)
        loss = loss - F.logsigmoid(better - worse).mean()
        found = match.gather(1, logits.argmax(dim=1, keepdim=True)).mean()
        numbers["retrieved"] = float(found)
        numbers["chosen"] = float((chosen.argmax(dim=1) == 0).float().mean())
        numbers["preferred"] = float((better > worse).float().mean())
        return loss, numbers

    run.train(readers, compare)


def draw_choices(scene: Scene, rng: random.Random) -> list[str]:
    """Draw a right caption of a scene and `WRONG` others that differ in one visible word.

    One in four is a short caption of some attributes, including the changed one.
    """
    wrong, changed = [], []
    for name in rng.sample(VISIBLE, WRONG):
        word = rng.choice([word for word in ATTRIBUTES[name] if word != getattr(scene, name)])
        wrong.append(replace(scene, **{name: word}))
        changed.append(name)
    stated = [name for name in VISIBLE if name in changed or rng.random() < 0.5]
    short = rng.random() < 0.25
    # The same random state for each scene gives the same phrasing with another word.
    state = rng.getstate()
    texts = []
    for said in (scene, *wrong):
        rng.setstate(state)
        words = {name: getattr(said, name) for name in stated}
        texts.append(attribute_caption(words, rng) if short else draw_caption(said, rng))
    return texts


def large_weights(towers: nn.Module) -> None:
    """Initialise every product at 1 / sqrt(inputs), and positions far enough apart to differ."""
    for module in towers.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
    for name, parameter in towers.named_parameters():
        if "position_embedding" in name:
            nn.init.normal_(parameter, std=0.3)
