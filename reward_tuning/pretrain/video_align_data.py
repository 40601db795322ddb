"""What the embedded VideoAlign learns from: pairs of clips of which one is better in one respect.

Three sorts of pairs, as many of each: one clip spoiled in what a still frame shows (visual
quality), one with a motion that cannot be or is none (motion quality), and one that shows another
word than the prompt says (text alignment). Of what is alike a pair says so, which keeps the axes
apart.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from base_model.tiny.captions import Language, draw_caption
from base_model.tiny.render import draw_staging, render_staged
from base_model.tiny.scenes import ATTRIBUTES, FRAMES, Scene, Split, draw_scenes
from reward_tuning.pretrain.clip_accuracy import shuffled, teleported
from reward_tuning.pretrain.critic_data import jitter_clips
from reward_tuning.pretrain.degradations import DEGRADATIONS, degrade
from reward_tuning.pretrain.judge_data import stage_pair

UNSAID = float("nan")
SORTS = ("VQ", "MQ", "TA")
"""Axes, and the sorts of pairs after the axis in which their clips differ."""


@dataclass(frozen=True)
class Compared:
    """n pairs of clips, two prompts each, and what is true of them.

    Attributes:
        first: `(n, f, 3, H, W)` in [0, 1]: the better clips.
        second: likewise: the worse ones, in one respect.
        prompts: n captions of the first clips.
        others: n captions that differ in one attribute's word; of the second clip where the sort
            is TA.
        better: `(n, 3)` by axis, under `prompts`: 1 where the first clip is better, 0 where
            both are as good, NaN where nothing is said.
        sorts: by pair, of `SORTS`.
        reasons: by pair: the degradation, the fault of motion, or the attribute.
        words: by pair: the attribute in which the two prompts differ.
    """

    first: Tensor
    second: Tensor
    prompts: list[str]
    others: list[str]
    better: Tensor
    sorts: list[str]
    reasons: list[str]
    words: list[str]


def frozen(scene: Scene, rng: random.Random) -> tuple[Tensor, Tensor]:
    """A clip, and one of its frames all the time."""
    clip = render_staged(scene, draw_staging(scene, rng))
    return clip, clip[rng.randrange(FRAMES)].expand_as(clip)


def stuttering(scene: Scene, rng: random.Random) -> tuple[Tensor, Tensor]:
    """A clip, and one in which each frame stands for three."""
    clip = render_staged(scene, draw_staging(scene, rng))
    return clip, clip[[t // 3 * 3 + 1 for t in range(FRAMES)]]


def flickering(scene: Scene, rng: random.Random) -> tuple[Tensor, Tensor]:
    """A clip, and one whose brightness jumps from frame to frame."""
    clip = render_staged(scene, draw_staging(scene, rng))
    light = torch.tensor([rng.choice((-1, 1)) * rng.uniform(0.08, 0.3) for _ in range(FRAMES)])
    return clip, (clip + light[:, None, None, None]).clamp(0, 1)


FAULTS: dict[str, Callable[[Scene, random.Random], tuple[Tensor, Tensor]]] = {
    "frozen": frozen,
    "stuttering": stuttering,
    "shuffled": shuffled,
    "teleported": teleported,
    "flickering": flickering,
}
"""What goes wrong with a motion; all but the last show only where something moves."""


def draw_compared(
    count: int,
    rng: random.Random,
    generator: Generator,
    split: Split = "train",
    language: Language | None = None,
    sorts: Sequence[str] = SORTS,
) -> Compared:
    """Draw pairs.

    Args:
        count: pairs; the sorts take turns.
        rng: draws scenes, stagings, prompts and faults.
        generator: of fields and noise.
        split: which combinations, those of the prompts included.
        language: of the prompts; drawn for each if not given.
        sorts: of pairs.
    """
    turns = [sorts[i % len(sorts)] for i in range(count)]
    pairs, said, reasons, words = [], [], [], []
    for sort in turns:
        (scene,) = draw_scenes(1, rng, split)
        while sort == "MQ" and scene.motion == "still":
            (scene,) = draw_scenes(1, rng, split)
        other, attribute = changed_word(scene, rng, split)
        reason = attribute
        if sort == "VQ":
            clip = render_staged(scene, draw_staging(scene, rng))
            reason = rng.choice(list(DEGRADATIONS))
            pairs.append(spoiled_alike(clip, reason, rng, generator))
        elif sort == "MQ":
            reason = rng.choice(list(FAULTS))
            pairs.append(FAULTS[reason](scene, rng))
        else:
            stagings = stage_pair(scene, other, rng)
            pairs.append((render_staged(scene, stagings[0]), render_staged(other, stagings[1])))
        state = rng.getstate()
        both = []
        for one in (scene, other):  # one draw: the same phrasing with another word
            rng.setstate(state)
            both.append(draw_caption(one, rng, language))
        said.append(both)
        reasons.append(reason)
        words.append(attribute)
    first, second = (torch.stack(side) for side in zip(*pairs, strict=True))
    first, second = jitter_clips(torch.cat([first, second]), generator).chunk(2)
    better = torch.tensor([_better(*row) for row in zip(turns, reasons, strict=True)])
    prompts, others = (list(side) for side in zip(*said, strict=True))
    return Compared(first, second, prompts, others, better, turns, reasons, words)


def _better(sort: str, reason: str) -> list[float]:
    """By axis. A strong degradation hides words, and a wrong motion is one: of those TA is mute."""
    if sort == "VQ":
        return [1.0, 0.0, UNSAID]
    if sort == "MQ":
        return [0.0, 1.0, UNSAID]
    # One of two motions may be none, which is a matter of quality as well.
    return [0.0, UNSAID if reason == "motion" else 0.0, 1.0]


def changed_word(scene: Scene, rng: random.Random, split: Split) -> tuple[Scene, str]:
    """A scene of the split that differs in one attribute, and this attribute.

    Of the held-out scenes 2 % have no neighbour that is held out as well; those take any.
    """
    near = [replace(scene, **{name: word}) for name in ATTRIBUTES for word in ATTRIBUTES[name]]
    alone = all(other == scene or other.split != split for other in near)
    while True:
        name = rng.choice(list(ATTRIBUTES))
        word = rng.choice([word for word in ATTRIBUTES[name] if word != getattr(scene, name)])
        other = replace(scene, **{name: word})
        if alone or other.split == split:
            return other, name


def spoiled_alike(
    clip: Tensor, kind: str, rng: random.Random, generator: Generator
) -> tuple[Tensor, Tensor]:
    """A clip less and more spoiled, every frame in the same way; three in four are not at all.

    What does not change from frame to frame is no fault of the motion.
    """
    less = rng.uniform(0.0, 0.5) if rng.random() < 0.25 else 0.0
    degrees = (less, rng.uniform(less + 0.25, 1.0))
    kinds = torch.tensor([list(DEGRADATIONS).index(kind)])
    state = generator.get_state()
    sides = []
    for degree in degrees:
        frames = []
        for frame in clip:
            generator.set_state(state)
            frames.append(degrade(frame[None], kinds, torch.tensor([degree]), generator))
        sides.append(torch.cat(frames))
    return sides[0], sides[1]
