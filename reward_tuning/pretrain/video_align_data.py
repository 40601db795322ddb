"""Training data of the embedded VideoAlign: pairs of clips of which one is better in one respect.

There are equally many of three sorts: one clip degraded in its still frames (visual quality), one
with an impossible or missing motion (motion quality), and one that differs from the prompt in a
word (text alignment). Pairs are also labelled as ties on the other axes, which keeps the axes
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
"""Axes, which also name the sorts of pairs by the axis on which the clips differ."""


@dataclass(frozen=True)
class Compared:
    """n pairs of clips with two prompts each, and their labels.

    Attributes:
        first: `(n, f, 3, H, W)` in [0, 1], the better clips.
        second: `(n, f, 3, H, W)` in [0, 1], the clips that are worse in one respect.
        prompts: n captions of the first clips.
        others: n captions that differ in one attribute's word; captions of the second clips for the
            sort TA.
        better: `(n, 3)` by axis, under `prompts`: 1 if the first clip is better, 0 for a tie, NaN
            without a label.
        sorts: Entry of `SORTS` for each pair.
        reasons: Degradation, motion fault or attribute of each pair.
        words: Attribute in which the two prompts of each pair differ.
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
    """Render a clip, and one of its frames repeated."""
    clip = render_staged(scene, draw_staging(scene, rng))
    return clip, clip[rng.randrange(FRAMES)].expand_as(clip)


def stuttering(scene: Scene, rng: random.Random) -> tuple[Tensor, Tensor]:
    """Render a clip, and one that shows each third frame three times."""
    clip = render_staged(scene, draw_staging(scene, rng))
    return clip, clip[[t // 3 * 3 + 1 for t in range(FRAMES)]]


def flickering(scene: Scene, rng: random.Random) -> tuple[Tensor, Tensor]:
    """Render a clip, and one whose brightness jumps from frame to frame."""
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
"""Motion faults; all but the last are visible only if something moves."""


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
        count: Number of pairs; the sorts alternate.
        rng: Random generator of scenes, stagings, prompts and faults.
        generator: Random generator of fields and noise.
        split: Split of the scenes, including those of the prompts.
        language: Language of the prompts; None draws it for each pair.
        sorts: Sorts of pairs.
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
        for one in (scene, other):  # the same random state: the same phrasing with another word
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
    """Return the labels by axis. TA has none if a degradation or a motion may hide a word."""
    if sort == "VQ":
        return [1.0, 0.0, UNSAID]
    if sort == "MQ":
        return [0.0, 1.0, UNSAID]
    # One of two motions may be "still", which affects motion quality, too.
    return [0.0, UNSAID if reason == "motion" else 0.0, 1.0]


def changed_word(scene: Scene, rng: random.Random, split: Split) -> tuple[Scene, str]:
    """Draw a scene of the split that differs in one attribute, and return this attribute.

    2 % of the held-out scenes have no held-out neighbour; they take any.
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
    """Degrade a clip less and more, all frames alike; three in four first clips are unchanged.

    A degradation that does not change from frame to frame is no motion fault.
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
