"""Training data of the embedded critic: questions about rendered clips, with answers."""

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
"""Attribute that each aspect asks about; `artefact` asks about none."""

SPOILED = 0.4
"""Share of clips with an artefact."""

OTHER_WRONG = 0.4
"""Probability that a prompt is wrong in each attribute that the question does not concern."""

DEFECTS = (*DEGRADATIONS, "flicker")

PAIRS = tuple((t, min(t + 1, FRAMES - 1)) for t in range(0, FRAMES, 2))
"""Frames of each patch in time; the last frame appears twice."""


@dataclass(frozen=True)
class Shown:
    """Clips of the embedded world, some of them degraded.

    Attributes:
        scenes: Scenes of the n clips.
        clips: `(n, f, 3, H, W)` in [0, 1].
        shapes: `(n, f, 3, H, W)`, the same shapes white on black, not degraded.
        defects: `(n,)` index into `DEFECTS`, -1 for none.
    """

    scenes: list[Scene]
    clips: Tensor
    shapes: Tensor
    defects: Tensor

    def coverage(self, side: int) -> Tensor:
        """Return the share of the shape under each token of `side` pixels, `(n, v)`, with sum 1."""
        share = self.shapes.mean(dim=2).unflatten(1, (-1, 2)).mean(dim=2)
        share = F.avg_pool2d(share, side).flatten(1)
        return share / share.sum(dim=1, keepdim=True)


@dataclass(frozen=True)
class Asked:
    """Clips with k questions each, and the right answers.

    Attributes:
        shown: The n clips.
        questions: k texts for each clip.
        said: Scene of each question's prompt; None for a question without a prompt.
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
        count: Number of clips.
        rng: Random generator of scenes, stagings and defects.
        generator: Random generator of fields, shifts and noise.
        split: Split of the scenes.
        pairs: Number of patches in time to keep of every clip; None keeps whole clips.
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
        spoiled = spoiled[:, :FRAMES]  # the critic repeats the last frame itself
    return Shown(scenes, spoiled, shapes, defects)


def jitter_clips(clips: Tensor, generator: Generator) -> Tensor:
    """Apply the harmless variation of `jitter` frame by frame."""
    return jitter(clips.flatten(0, 1), generator).unflatten(0, clips.shape[:2])


def spoil(clips: Tensor, defects: Tensor, degrees: Tensor, generator: Generator) -> Tensor:
    """Degrade all frames of each clip.

    Args:
        clips: `(n, f, 3, H, W)` in [0, 1].
        defects: `(n,)` index into `DEFECTS`, -1 for none.
        degrees: `(n,)` in [0, 1].
        generator: Random generator of fields, shifts and noise, drawn for every frame.
    """
    frames = clips.shape[1]
    kinds, much = (x.repeat_interleave(frames) for x in (defects, degrees))
    spoiled = degrade(clips.flatten(0, 1), kinds, much * (kinds >= 0), generator)
    spoiled = spoiled.unflatten(0, clips.shape[:2])
    light = (torch.rand(clips.shape[:2], generator=generator) * 2 - 1) * 0.4 * degrees[:, None]
    light = light * (defects == DEFECTS.index("flicker"))[:, None]
    return (spoiled + light[..., None, None, None]).clamp(0, 1)


def prompt_scene(scene: Scene, aspect: str, right: bool, rng: random.Random, split: Split) -> Scene:
    """Draw a scene for a prompt, right or wrong in the attribute that the aspect asks about."""
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
    """Draw for each aspect a question, its prompt's scene, and the answer, half of them 1 (Yes)."""
    texts: list[str] = []
    scenes: list[Scene | None] = []
    answers: list[float] = []
    for aspect in aspects:
        if aspect == "artefact":
            texts.append(ASPECTS[aspect])
            scenes.append(None)
            answers.append(float(defect < 0))
            continue
        right = rng.random() < 0.5
        said = prompt_scene(scene, aspect, right, rng, split)
        texts.append(ASPECTS[aspect].replace(PLACE, draw_caption(said, rng, language)))
        scenes.append(said)
        answers.append(float(right))
    return texts, scenes, answers


def draw_asked(
    count: int,
    aspects: Sequence[str],
    rng: random.Random,
    generator: Generator,
    split: Split = "train",
    language: Language | None = None,
    pairs: int | None = None,
) -> Asked:
    """Draw clips (`draw_clips`) and a question about each aspect."""
    shown = draw_clips(count, rng, generator, split, pairs)
    drawn = [
        draw_questions(scene, defect, aspects, rng, split, language)
        for scene, defect in zip(shown.scenes, shown.defects.tolist(), strict=True)
    ]
    texts, said, answers = (list(part) for part in zip(*drawn, strict=True))
    return Asked(shown, texts, said, torch.tensor(answers))


def word_ends(text: str, said: Scene) -> dict[str, int]:
    """Return the index of the last character of each attribute's word in a question."""
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
    """Keep the frames of `count` patches in time, in order: `(n, 2 * count, 3, H, W)`."""
    chosen = sorted(rng.sample(PAIRS, count))
    return clips[:, [place for pair in chosen for place in pair]]


def critic_texts() -> list[str]:
    """Return the texts for the critic's vocabulary: captions, questions and answers.

    Chinese captions are split into pieces: as they have no spaces, whole phrases would become one
    token, in which single words cannot be distinguished.
    """
    chinese = [
        *CHINESE_WORDS.values(),
        *(move for moves in CHINESE_MOVES.values() for move in moves),
    ]
    for template in CHINESE_TEMPLATES:
        chinese += re.split(r"\{\w+\}", template)
    often = [*(q.replace(PLACE, "") for q in ASPECTS.values()), *ANSWERS, *chinese]
    return [*(caption for caption in every_caption("train") if caption.isascii()), *(often * 500)]
