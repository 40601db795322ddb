"""What the embedded critic is asked in training: questions about rendered clips, with answers."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from base_model.tiny.captions import (
    CHINESE_MOVES,
    CHINESE_TEMPLATES,
    CHINESE_WORDS,
    ENGLISH_MOVES,
    Language,
    draw_caption,
    every_caption,
)
from base_model.tiny.render import render
from base_model.tiny.scenes import ATTRIBUTES, FRAMES, Scene, Split, draw_scenes
from reward_tuning.pretrain.degradations import DEGRADATIONS, degrade, jitter
from reward_tuning.pretrain.judge_clip import silhouettes
from rewards.kinds.qwen_critic import ANSWERS, ASPECTS, PLACE

ASKED = {"object": "shape", "colour": "colour", "motion": "motion"}
"""The attribute of a scene that an aspect asks for; `artefact` asks for none."""

SPOILED = 0.4
"""Share of clips with an artefact."""

OTHER_WRONG = 0.4
"""How often a prompt is wrong in each attribute that is not asked for."""

DEFECTS = (*DEGRADATIONS, "flicker")

PAIRS = tuple((t, min(t + 1, FRAMES - 1)) for t in range(0, FRAMES, 2))
"""Frames that one patch in time spans; the last frame stands twice."""


@dataclass(frozen=True)
class Shown:
    """Clips of the embedded world, some of them spoiled.

    Attributes:
        scenes: what the n clips show.
        clips: `(n, f, 3, H, W)` in [0, 1].
        shapes: likewise, the same shapes white on black, unspoiled.
        defects: `(n,)` place in `DEFECTS`, -1 for none.
    """

    scenes: list[Scene]
    clips: Tensor
    shapes: Tensor
    defects: Tensor

    def coverage(self, side: int) -> Tensor:
        """How much of the shape lies under each token of `side` pixels, `(n, v)`; sum 1."""
        share = self.shapes.mean(dim=2).unflatten(1, (-1, 2)).mean(dim=2)
        share = F.avg_pool2d(share, side).flatten(1)
        return share / share.sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class Asked:
    """Clips, each with k questions, and what is true.

    Attributes:
        shown: the n clips.
        questions: k texts a clip.
        said: the scene that each question's prompt describes; `None` for one without a prompt.
        answers: `(n, k)`, 1 for Yes.
    """

    shown: Shown
    questions: list[list[str]]
    said: list[list[Scene | None]]
    answers: Tensor


def draw_clips(
    count: int,
    rng: random.Random,
    generator: Generator,
    split: Split = "train",
    pairs: int | None = None,
) -> Shown:
    """Draw clips.

    Args:
        count: clips.
        rng: draws scenes, stagings and defects.
        generator: of fields, shifts and noise.
        split: which combinations.
        pairs: patches in time that are kept of every clip; `None` for whole clips.
    """
    scenes = draw_scenes(count, rng, split)
    clips = some_pairs(render(scenes, rng), len(PAIRS) if pairs is None else pairs, rng)
    defects = torch.tensor(
        [rng.randrange(len(DEFECTS)) if rng.random() < SPOILED else -1 for _ in scenes]
    )
    degrees = torch.tensor([rng.uniform(0.25, 1.0) for _ in scenes])
    shapes = silhouettes(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
    spoiled = jitter_clips(spoil(clips, defects, degrees, generator), generator)
    if pairs is None:
        spoiled = spoiled[:, :FRAMES]  # whoever looks at it repeats the last frame
    return Shown(scenes, spoiled, shapes, defects)


def jitter_clips(clips: Tensor, generator: Generator) -> Tensor:
    """The harmless variation of single frames, frame by frame."""
    return jitter(clips.flatten(0, 1), generator).unflatten(0, clips.shape[:2])


def spoil(clips: Tensor, defects: Tensor, degrees: Tensor, generator: Generator) -> Tensor:
    """Spoil each clip in all its frames.

    Args:
        clips: `(n, f, 3, H, W)` in [0, 1].
        defects: `(n,)` place in `DEFECTS`, -1 for none.
        degrees: `(n,)` in [0, 1].
        generator: of fields, shifts and noise, drawn anew for every frame.
    """
    frames = clips.shape[1]
    kinds, much = (x.repeat_interleave(frames) for x in (defects, degrees))
    spoiled = degrade(clips.flatten(0, 1), kinds, much * (kinds >= 0), generator)
    spoiled = spoiled.unflatten(0, clips.shape[:2])
    light = (torch.rand(clips.shape[:2], generator=generator) * 2 - 1) * 0.4 * degrees[:, None]
    light = light * (defects == DEFECTS.index("flicker"))[:, None]
    return (spoiled + light[..., None, None, None]).clamp(0, 1)


def prompt_scene(scene: Scene, aspect: str, right: bool, rng: random.Random, split: Split) -> Scene:
    """A scene of the split that a prompt may describe, right or wrong in what is asked for."""
    asked = ASKED[aspect]
    while True:
        words = {}
        for name, choices in ATTRIBUTES.items():
            own = getattr(scene, name)
            wrong = not right if name == asked else rng.random() < OTHER_WRONG
            words[name] = rng.choice([w for w in choices if w != own]) if wrong else own
        said = replace(scene, **words)
        if said.split == split:
            return said


def draw_questions(
    scene: Scene,
    defect: int,
    aspects: Sequence[str],
    rng: random.Random,
    split: Split = "train",
    language: Language | None = None,
) -> tuple[list[str], list[Scene | None], list[float]]:
    """A question an aspect, its prompt's scene, and the answer, for a half of them 1 (Yes)."""
    texts: list[str] = []
    told: list[Scene | None] = []
    answers: list[float] = []
    for aspect in aspects:
        if aspect == "artefact":
            texts.append(ASPECTS[aspect])
            told.append(None)
            answers.append(float(defect < 0))
            continue
        right = rng.random() < 0.5
        said = prompt_scene(scene, aspect, right, rng, split)
        texts.append(ASPECTS[aspect].replace(PLACE, draw_caption(said, rng, language)))
        told.append(said)
        answers.append(float(right))
    return texts, told, answers


def draw_asked(
    count: int,
    aspects: Sequence[str],
    rng: random.Random,
    generator: Generator,
    split: Split = "train",
    language: Language | None = None,
    pairs: int | None = None,
) -> Asked:
    """Clips (`draw_clips`) and questions about them, one an aspect."""
    shown = draw_clips(count, rng, generator, split, pairs)
    drawn = [
        draw_questions(scene, defect, aspects, rng, split, language)
        for scene, defect in zip(shown.scenes, shown.defects.tolist(), strict=True)
    ]
    texts, told, answers = (list(part) for part in zip(*drawn, strict=True))
    return Asked(shown, texts, told, torch.tensor(answers))


def word_ends(text: str, said: Scene) -> dict[str, int]:
    """Place in a question of the last character of each attribute's word, by attribute."""
    ends = {}
    for name in ATTRIBUTES:
        word = getattr(said, name)
        forms = [word, CHINESE_WORDS.get(word, word)]
        if name == "motion":
            forms = [*ENGLISH_MOVES[word], *CHINESE_MOVES[word]]
        (form,) = [form for form in forms if form in text]
        ends[name] = text.index(form) + len(form) - 1
    return ends


def some_pairs(clips: Tensor, count: int, rng: random.Random) -> Tensor:
    """Frames of `count` of the patches in time, in order: `(n, 2 * count, 3, H, W)`."""
    chosen = sorted(rng.sample(PAIRS, count))
    return clips[:, [place for pair in chosen for place in pair]]


def critic_texts() -> list[str]:
    """What the critic's vocabulary should be good at: captions, its questions, its answers.

    Chinese captions come in pieces: written without blanks, whole phrases would become one token,
    in which no word can be told from another.
    """
    chinese = [
        *CHINESE_WORDS.values(),
        *(move for moves in CHINESE_MOVES.values() for move in moves),
    ]
    for template in CHINESE_TEMPLATES:
        chinese += re.split(r"\{\w+\}", template)
    often = [*(q.replace(PLACE, "") for q in ASPECTS.values()), *ANSWERS, *chinese]
    return [*(caption for caption in every_caption("train") if caption.isascii()), *(often * 500)]
