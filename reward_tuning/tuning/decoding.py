"""Which part of a clip is decoded and judged in training.

A judge that only ever sees the first frames pays for them with motion: the cheapest clip is then a
good still. What is judged can be drawn anew for each batch instead.
"""

from __future__ import annotations

import itertools
from typing import Literal

import torch

from reward_tuning.errors import TuningError
from reward_tuning.schema.values import TIME_STRIDE

Policy = Literal["all", "first", "random-window", "stratified"]


def decoded_frames(
    policy: Policy, latents: int, frames: int, draw: torch.Generator
) -> tuple[int, ...]:
    """Frames that are judged.

    - `all`: every frame. The decoder keeps the activations of one latent at a time.
    - `first`: the first `latents` latents, as the published script.
    - `random-window`: so many latents in a row from a random place. The latents before them are
      decoded as context, without gradient.
    - `stratified`: the clip in `latents` equal parts, one random latent of each: early and late
      frames in every batch. What lies between the first and the last of them is decoded.

    Args:
        policy: one of the four.
        latents: 1 to the clip's number; `all` ignores it.
        frames: of the clip, 4k + 1.
        draw: CPU generator; the same draws on every rank give every rank the same work.

    Returns:
        Increasing positions in [0, frames).

    Raises:
        TuningError: more latents than the clip has.
    """
    count = (frames - 1) // TIME_STRIDE + 1
    if policy == "all":
        return tuple(range(frames))
    if not 1 <= latents <= count:
        raise TuningError(
            f"train.decoded_latents is {latents}; a clip of {frames} frames has {count} latents"
        )
    if policy == "stratified":
        edges = [part * count // latents for part in range(latents + 1)]
        chosen = [
            int(torch.randint(low, high, (), generator=draw))
            for low, high in itertools.pairwise(edges)
        ]
    else:
        last = count - latents if policy == "random-window" else 0
        start = int(torch.randint(0, last + 1, (), generator=draw))
        chosen = list(range(start, start + latents))
    return tuple(frame for latent in chosen for frame in frames_of(latent))


def frames_of(latent: int) -> range:
    """Frames that one latent decodes to: the first to one, every other one to four."""
    end = TIME_STRIDE * latent + 1
    return range(max(end - TIME_STRIDE, 0), end)
