"""Accuracy of judges of whole clips on rendered clips: impossible motion, and speed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from base_model.tiny.oracle import recognise_clip
from base_model.tiny.render import DIRECTIONS, Staging, draw_staging, render_staged
from base_model.tiny.scenes import FRAMES, SIDE, Scene, draw_scenes
from reward_tuning.pretrain.judge_data import named_rng
from rewards.core.base import VideoReward

MIDDLE = FRAMES // 2
FASTEST = 4.0
"""Pixels per frame; a small shape then crosses half of the picture in a clip."""

AT_ONCE = 16


def shuffled(scene: Scene, rng: random.Random) -> tuple[Tensor, Tensor]:
    """Render a clip, and its frames in another order that is not the reverse."""
    clip = render_staged(scene, draw_staging(scene, rng))
    order = list(range(FRAMES))
    while order in (list(range(FRAMES)), list(range(FRAMES))[::-1]):
        rng.shuffle(order)
    return clip, clip[order]


def teleported(scene: Scene, rng: random.Random) -> tuple[Tensor, Tensor]:
    """Render a clip, and one whose shape jumps in the middle and then moves on as before."""
    staging = draw_staging(scene, rng)
    clip = render_staged(scene, staging)
    centre = staging.centre
    while max(abs(a - b) for a, b in zip(centre, staging.centre, strict=True)) < staging.radius:
        centre = draw_staging(scene, rng).centre
    other = render_staged(scene, replace(staging, centre=centre))
    return clip, torch.cat([clip[:MIDDLE], other[MIDDLE:]])


def turned_back(scene: Scene, rng: random.Random) -> tuple[Tensor, Tensor]:
    """Render a clip, and one that runs backwards from the middle on."""
    clip = render_staged(scene, draw_staging(scene, rng))
    return clip, torch.cat([clip[: MIDDLE + 1], clip[:MIDDLE].flip(0)])


VIOLATIONS: dict[str, Callable[[Scene, random.Random], tuple[Tensor, Tensor]]] = {
    "shuffled": shuffled,
    "teleported": teleported,
    "turned back": turned_back,
}


@torch.no_grad()
def ordering_accuracy(judge: VideoReward, count: int, seed: int) -> dict[str, float]:
    """Return the share of pairs in which the rendered clip scores above an impossible version.

    Args:
        judge: Judge of clips that ignores the prompt.
        count: Number of pairs of moving held-out scenes for each violation.
        seed: Seed of scenes, stagings and violations.

    Returns:
        Share in [0, 1] by violation; 0.5 is chance.
    """
    rng, _ = named_rng("clip ordering", seed)
    accuracy = {}
    for name, violate in VIOLATIONS.items():
        pairs = [violate(scene, rng) for scene in moving_scenes(count, rng)]
        right, wrong = (scores(judge, torch.stack(side)) for side in zip(*pairs, strict=True))
        accuracy[name] = float((right > wrong).float().mean())
    return accuracy


@torch.no_grad()
def speed_agreement(judge: VideoReward, count: int, seed: int) -> dict[str, float]:
    """Compare a judge's score with the speed that the oracle reads, 0 to 4 pixels per frame.

    Args:
        judge: Judge of clips.
        count: Number of clips of held-out scenes, all of different speeds.
        seed: Seed of scenes and stagings.

    Returns:
        `"correlation"` (Pearson's), `"rank correlation"` (Spearman's), and `"pairs"`: the
        share of pairs of clips that the judge orders like the oracle.
    """
    rng, _ = named_rng("speed agreement", seed)
    clips = torch.stack(
        [
            render_staged(scene, at_speed(scene, FASTEST * i / (count - 1), rng))
            for i, scene in enumerate(moving_scenes(count, rng))
        ]
    )
    speed = torch.tensor([torch.tensor(recognise_clip(clip).velocity).norm() for clip in clips])
    found = scores(judge, clips)
    ranks = [values.argsort().argsort().float() for values in (speed, found)]
    higher = [torch.triu((v[:, None] - v[None]).sign(), diagonal=1) for v in (speed, found)]
    return {
        "correlation": float(torch.corrcoef(torch.stack([speed, found]))[0, 1]),
        "rank correlation": float(torch.corrcoef(torch.stack(ranks))[0, 1]),
        "pairs": float((higher[0] * higher[1] > 0).sum() / (higher[0] != 0).sum()),
    }


def at_speed(scene: Scene, speed: float, rng: random.Random) -> Staging:
    """Draw a staging whose shape moves at a speed and passes the centre at half time."""
    dx, dy = DIRECTIONS[scene.motion]
    back = speed * MIDDLE
    return replace(
        draw_staging(scene, rng),
        velocity=(dx * speed, dy * speed),
        centre=(SIDE / 2 - dx * back, SIDE / 2 - dy * back),
    )


def moving_scenes(count: int, rng: random.Random) -> list[Scene]:
    """Draw held-out scenes with a moving shape."""
    drawn = (s for s in draw_scenes(4 * count, rng, "held_out") if s.motion != "still")
    return [scene for _, scene in zip(range(count), drawn, strict=False)]


def scores(judge: VideoReward, clips: Tensor) -> Tensor:
    """Score many clips, `(n, f, 3, H, W)` -> `(n,)`."""
    return torch.cat([judge(part, ["-"] * len(part)) for part in clips.split(AT_ONCE)])
