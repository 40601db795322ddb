"""Training data of the embedded judges: rendered frames, captions, preference pairs.

A single frame shows four of a scene's five attributes, all but motion. Every draw comes from a
named random generator, so that a step's batch depends on (seed, step) alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from base_model.tiny.captions import CHINESE_WORDS, draw_caption, every_caption
from base_model.tiny.render import Staging, draw_staging, render_staged
from base_model.tiny.scenes import ATTRIBUTES, FRAMES, Scene, Split, draw_scenes
from reward_tuning.pretrain.degradations import DEGRADATIONS, degrade

VISIBLE = ("colour", "shape", "background", "size")
"""Attributes that a single frame shows."""

ATTRIBUTE_SHARES = {"colour": 1, "shape": 2, "background": 1, "size": 1}
DEGRADATION_SHARES = dict.fromkeys(DEGRADATIONS, 1) | {"warp": 4, "bite": 2, "blur": 2}
"""Relative frequencies of differences in preference pairs, higher for a generator's faults."""

QUALITY_WORDS = {
    "clean": ("clean", "清晰"),
    "blur": ("blurry", "模糊"),
    "noise": ("noisy", "噪点"),
    "warp": ("distorted", "变形"),
    "fade": ("faded", "褪色"),
    "desaturate": ("colourless", "灰暗"),
    "ghost": ("doubled", "重影"),
    "smear": ("smeared", "拖影"),
    "tint": ("stained", "染色"),
    "grid": ("patterned", "网纹"),
    "bite": ("broken", "残缺"),
}


@dataclass(frozen=True)
class Captioned:
    """Frames and captions with their matches.

    Attributes:
        scenes: Scenes of the n frames.
        frames: `(n, 3, H, W)` fp32 in [0, 1].
        captions: m texts.
        match: `(n, m)` in [0, 1]: 1 where a frame shows everything that a caption states, less for
            a degraded frame under a caption that does not mention quality.
    """

    scenes: list[Scene]
    frames: Tensor
    captions: list[str]
    match: Tensor


@dataclass(frozen=True)
class Pairs:
    """A better and a worse frame for each prompt.

    Attributes:
        prompts: n captions.
        better: `(n, 3, H, W)` in [0, 1].
        worse: `(n, 3, H, W)` in [0, 1].
        reasons: Changed attribute or degradation of each pair.
        same: `(n, n)`, 1 where the scenes of two pairs look alike.
    """

    prompts: list[str]
    better: Tensor
    worse: Tensor
    reasons: list[str]
    same: Tensor


def named_rng(*name: object) -> tuple[random.Random, torch.Generator]:
    """Return random generators for one purpose, such as ("hps", seed, "step", 17)."""
    rng = random.Random("/".join(str(part) for part in name))
    return rng, torch.Generator().manual_seed(rng.getrandbits(63))


def draw_frames(
    count: int, rng: random.Random, split: Split = "train"
) -> tuple[list[Scene], Tensor]:
    """Draw two frames each of count / 2 new clips.

    Args:
        count: Number of frames.
        rng: Random generator of scenes, stagings and times.
        split: Split of the scenes.

    Returns:
        `count` scenes, and `(count, 3, H, W)` in [0, 1].
    """
    drawn, frames = [], []
    for scene in draw_scenes((count + 1) // 2, rng, split):
        drawn += [scene, scene]
        clip = render_staged(scene, draw_staging(scene, rng))
        frames += [clip[time] for time in rng.sample(range(FRAMES), 2)]
    return drawn[:count], torch.stack(frames[:count])


def render_pair(scene: Scene, attribute: str, rng: random.Random) -> tuple[Tensor, Tensor]:
    """Render a frame of a scene, and one in which a single attribute differs."""
    others = [word for word in ATTRIBUTES[attribute] if word != getattr(scene, attribute)]
    wrong = replace(scene, **{attribute: rng.choice(others)})
    stagings = stage_pair(scene, wrong, rng)
    time = rng.randrange(FRAMES)
    return render_staged(scene, stagings[0])[time], render_staged(wrong, stagings[1])[time]


def stage_pair(scene: Scene, other: Scene, rng: random.Random) -> tuple[Staging, Staging]:
    """Draw stagings of two scenes that agree in everything that the scenes' words leave open."""
    one, drawn = draw_staging(scene, rng), draw_staging(other, rng)
    changes: dict[str, Any] = {}
    if scene.size != other.size:
        changes["radius"] = drawn.radius
    if scene.background != other.background:
        changes["tone"] = drawn.tone
    if scene.motion != other.motion:
        changes |= {"velocity": drawn.velocity, "centre": drawn.centre}
    return one, replace(one, **changes)


def attribute_caption(words: dict[str, str], rng: random.Random) -> str:
    """Draw a short caption of some visible attributes, in one of the two languages."""
    if rng.random() < 0.5:
        noun = " ".join(w for w in (words.get("size"), words.get("colour")) if w)
        text = f"{noun} {words.get('shape', 'shape')}".strip()
        return f"a {text} on a {words['background']} background" if "background" in words else text
    zh = {name: CHINESE_WORDS[word] for name, word in words.items()}
    text = zh.get("size", "") + zh.get("colour", "") + zh.get("shape", "图形")
    return f"{text}，{zh['background']}背景" if "background" in zh else text


def quality_caption(text: str, kind: str) -> str:
    """Add the quality of the frame to a caption, in the caption's language."""
    english, chinese = QUALITY_WORDS[kind]
    return f"a {english} picture: {text}" if text.isascii() else f"{chinese}的画面：{text}"


def draw_captioned(
    count: int, rng: random.Random, generator: torch.Generator, split: Split = "train"
) -> Captioned:
    """Draw frames, a third of them degraded, each with a full or partial caption.

    Every clip gives two frames, so that a batch has clean and degraded frames of the same scene.
    """
    shown, frames = draw_frames(count, rng, split)
    kinds = list(DEGRADATIONS)
    picks = [rng.randrange(len(kinds)) if rng.random() < 1 / 3 else -1 for _ in shown]
    degrees = torch.tensor([rng.uniform(0.1, 1.0) for _ in shown])
    frames = degrade(frames, torch.tensor(picks), degrees, generator)
    qualities = [kinds[p] if p >= 0 else "clean" for p in picks]
    captions, stated, spoken = [], [], []
    for scene, quality in zip(shown, qualities, strict=True):
        full = rng.random() < 0.6
        names = VISIBLE if full else tuple(rng.sample(VISIBLE, rng.randint(1, 3)))
        words = {name: getattr(scene, name) for name in names}
        text = draw_caption(scene, rng) if full else attribute_caption(words, rng)
        named = rng.random() < 0.25
        captions.append(quality_caption(text, quality) if named else text)
        stated.append(words)
        spoken.append(quality if named else None)
    match = torch.zeros(count, count)
    for j, (words, said) in enumerate(zip(stated, spoken, strict=True)):
        for i, scene in enumerate(shown):
            if any(getattr(scene, name) != word for name, word in words.items()):
                continue
            if said is not None:
                match[i, j] = float(qualities[i] == said)
            else:
                match[i, j] = 1.0 if qualities[i] == "clean" else 1.0 - 0.8 * float(degrees[i])
    return Captioned(shown, frames, captions, match)


def draw_pairs(
    count: int, rng: random.Random, generator: torch.Generator, split: Split = "train"
) -> Pairs:
    """Draw preference pairs.

    40 %: one attribute wrong; 10 %: two blends of right and wrong, the better one closer to right;
    35 %: clean against degraded; 15 %: less against more of the same degradation.
    """
    shown = draw_scenes(count, rng, split)
    reasons, better, worse = [], [], []
    kinds = torch.full((count,), -1)
    degrees = torch.zeros(2, count)  # rows: of the better frames, of the worse
    for i, scene in enumerate(shown):
        attribute, sort = _draw(ATTRIBUTE_SHARES, rng), rng.random()
        right, wrong = render_pair(scene, attribute, rng)
        if sort < 0.5:
            high, low = 1.0, 0.0
            if sort >= 0.4:
                low = rng.uniform(0.0, 0.7)
                high = rng.uniform(low + 0.2, 1.0)
            better.append(torch.lerp(wrong, right, high))
            worse.append(torch.lerp(wrong, right, low))
            reasons.append(attribute)
            continue
        kinds[i] = list(DEGRADATIONS).index(_draw(DEGRADATION_SHARES, rng))
        less = 0.0 if sort < 0.85 else rng.uniform(0.0, 0.6)
        degrees[:, i] = torch.tensor([less, rng.uniform(less + 0.2, 1.0)])
        better.append(right)
        worse.append(right)
        reasons.append(list(DEGRADATIONS)[int(kinds[i])])
    # The same random state for both sides gives the same field, shift or noise, only stronger.
    state = generator.get_state()
    good = degrade(torch.stack(better), kinds, degrees[0], generator)
    generator.set_state(state)
    bad = degrade(torch.stack(worse), kinds, degrees[1], generator)
    looks = [tuple(getattr(scene, name) for name in VISIBLE) for scene in shown]
    same = torch.tensor([[float(a == b) for b in looks] for a in looks])
    return Pairs([draw_caption(scene, rng) for scene in shown], good, bad, reasons, same)


def _draw(shares: dict[str, int], rng: random.Random) -> str:
    return rng.choices(list(shares), weights=list(shares.values()))[0]


def tokenizer_texts() -> Sequence[str]:
    """Return the texts for the vocabulary: captions of the grammar and quality words."""
    full = every_caption("train")
    return [*full, *(quality_caption(text, kind) for kind in QUALITY_WORDS for text in full[::97])]
