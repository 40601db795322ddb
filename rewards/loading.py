"""From a kind and a file to a frozen judge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rewards.base import FrameReward
from rewards.clip import Relative
from rewards.clip_tower import TowerOptions
from rewards.errors import RewardError
from rewards.shared_towers import TowerPool


def load_reward(
    kind: str,
    checkpoint: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    name: str | None = None,
    folder: Path | None = None,
    chunk: int | None = None,
    architecture: str | Mapping[str, Any] | None = None,
    tower: str | Path | None = None,
    gradient_checkpointing: bool = False,
    relative: Relative | None = None,
    pool: TowerPool | None = None,
) -> FrameReward:
    """Load a frozen judge.

    Args:
        kind: ``hps``, ``clip``, ``pickscore``, ``aesthetic`` or ``aesthetic_v2_5``.
        checkpoint: a shipped name (``tiny/hps.safetensors``), a path, a published name
            (``hps-v2.1``) or a hub id (``org/repo/file``).
        device: where it runs.
        dtype: of the towers; features are fp32 before any dot product.
        name: in metrics; the kind if not given.
        folder: what a relative path is relative to; the working directory if not given.
        chunk: frames scored in one pass; bounds the memory, changes no number.
        architecture: open_clip's model name or its configuration, for a file that does not say.
        tower: only for ``aesthetic`` and ``aesthetic_v2_5``: the checkpoint under the head, when
            it is not the one the head's file names.
        gradient_checkpointing: recompute each block of a vision transformer in the backward pass.
        relative: only for ``hps`` and ``clip``: judge one text against another.
        pool: where judges with equal towers share them; ``None`` for a judge alone.

    Returns:
        The judge, in evaluation mode, without trainable parameters.

    Raises:
        RewardError: an unknown kind, a missing, damaged or foreign file.
    """
    options = TowerOptions(torch.device(device), dtype, architecture, gradient_checkpointing, pool)
    common: dict[str, Any] = {
        "device": options.device,
        "dtype": dtype,
        "folder": folder,
        "gradient_checkpointing": gradient_checkpointing,
        "architecture": architecture,
        "pool": pool,
    }
    if tower is not None and kind not in ("aesthetic", "aesthetic_v2_5"):
        raise RewardError(f"tower is an option of the kind aesthetic, not of {kind!r}; remove it.")
    if relative is not None and kind not in ("hps", "clip"):
        raise RewardError("relative needs a judge that reads the prompt: hps or clip.")
    judge: FrameReward
    match kind:
        case "hps":
            from rewards.hps import load_hps

            judge = hps = load_hps(checkpoint, folder, options)
            hps.relative = relative
        case "clip":
            from rewards.clip import load_clip

            judge = clip = load_clip(checkpoint, folder, options)
            clip.relative = relative
        case "aesthetic":
            from rewards.aesthetic import load_aesthetic

            judge = load_aesthetic(checkpoint, folder, options, tower)
        case "pickscore":
            from rewards.pickscore import load_pickscore

            judge = load_pickscore(checkpoint, **common)
        case "aesthetic_v2_5":
            from rewards.aesthetic_v2_5 import load_aesthetic_v2_5

            judge = load_aesthetic_v2_5(checkpoint, tower=tower, **common)
        case "latent":
            raise RewardError(
                "kind 'latent' scores noisy latents and not frames; load it with "
                "rewards.load_latent_reward."
            )
        case _:
            raise RewardError(
                f"kind {kind!r} is no judge; allowed: hps, clip, aesthetic, pickscore, "
                "aesthetic_v2_5."
            )
    judge.name = name or kind
    judge.chunk = chunk
    return judge
