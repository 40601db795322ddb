"""From a kind and a file to a frozen judge.

To add a kind ``my``:

1. ``rewards/my.py``: its class (a :class:`rewards.core.base.FrameReward` or ``VideoReward``) and
   its loader, ``load_my(checkpoint, *, device, ...) -> MyReward``. The loader takes, by keyword,
   what the kind has and nothing else: of the common ones ``device`` always, ``checkpoint`` unless
   it has no file, ``folder`` with it, ``dtype`` and ``gradient_checkpointing`` where there is a
   network, ``pool`` where other judges may have the same one; after them the kind's own options,
   each with a default.
2. A case in :func:`loader_of`, which imports lazily, and the kind's name in ``KINDS``.
3. Its section in ``reward_tuning.schema.judges``, with the same own options as keys.
4. For published files their records in :mod:`rewards.published`; for a shipped one its line in
   ``benchmarks/judges.py``; in ``docs/rewards.md`` a row in both tables.

A judge of texts says its ``context_length`` and gives ``truncated(prompts)``, so that long prompts
are warned of. A judge that only measures says ``evaluation_only = True`` in its class and in its
section.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from rewards.core.base import Judge
from rewards.core.checkpoint import resolve, verify_sha256
from rewards.core.shared_towers import TowerPool
from rewards.errors import RewardError

KINDS = (
    "hps",
    "clip",
    "aesthetic",
    "pickscore",
    "aesthetic_v2_5",
    "image_reward",
    "mps",
    "qwen_critic",
    "video_align",
    "hpsv3",
    "motion_energy",
    "motion_flow",
    "flicker",
    "consistency",
    "vjepa2",
    "dynamic_degree",
    "sharpness",
    "no_cuts",
    "python",
)
"""Kinds of judges of frames; judges of noisy latents are loaded by ``load_latent_reward``."""

COMMON = ("checkpoint", "folder", "device", "dtype", "gradient_checkpointing", "pool")
"""Keywords of loaders that are no option of one kind alone."""


def load_reward(
    kind: str,
    checkpoint: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    name: str | None = None,
    folder: Path | None = None,
    sha256: str | None = None,
    chunk: int | None = None,
    gradient_checkpointing: bool = False,
    pool: TowerPool | None = None,
    **options: Any,
) -> Judge:
    """Load a frozen judge of frames.

    Args:
        kind: one of ``KINDS``.
        checkpoint: a shipped name (``tiny/hps.safetensors``), a path, a published name
            (``hps-v2.1``) or a hub id (``org/repo/file``, ``org/repo/file@revision``); ``None`` for
            a kind without a file, or for the one that the kind takes by itself.
        device: where it runs.
        dtype: of the networks; scores are fp32.
        name: in metrics; the kind if not given.
        folder: what a relative path is relative to; the working directory if not given.
        sha256: of the file, 64 hexadecimal digits; checked before it is read.
        chunk: frames (clips, for a judge of whole clips) scored in one pass; bounds the memory,
            changes no number.
        gradient_checkpointing: recompute each block of a network in the backward pass.
        pool: where judges with equal networks share them; ``None`` for a judge alone.
        options: the kind's own, such as ``architecture``, ``tower`` and ``relative`` (see the
            kind's loader).

    Returns:
        The judge, in evaluation mode, without trainable parameters.

    Raises:
        RewardError: an unknown kind; an option that the kind does not have; a file that is missing,
            damaged, changed or of another kind, or one for a kind without; a package that the
            kind needs and that is not installed, or in another version.
    """
    with packages_needed(kind):
        loader = loader_of(kind)
    known = inspect.signature(loader).parameters
    common: dict[str, Any] = {"device": torch.device(device)}
    if "checkpoint" in known:
        if checkpoint is None and known["checkpoint"].default is not inspect.Parameter.empty:
            checkpoint = known["checkpoint"].default
        if checkpoint is None:
            raise RewardError(f"a judge of kind {kind} is loaded from a file: give its checkpoint.")
        if sha256 is not None:
            verify_sha256(resolve(checkpoint, folder), sha256)
        common |= {"checkpoint": checkpoint, "folder": folder}
    elif checkpoint is not None:
        raise RewardError(
            f"a judge of kind {kind} has no file; remove the checkpoint {str(checkpoint)!r}."
        )
    if "pool" in known:
        common["pool"] = pool
    network = {"dtype": dtype, "gradient_checkpointing": gradient_checkpointing}
    options |= {key: value for key, value in network.items() if key in known or value != REST[key]}
    own = [key for key in known if key not in COMMON]
    for key in options:
        if key not in known:
            raise RewardError(
                f"{key} is no option of the kind {kind}; "
                f"{'allowed: ' + ', '.join(own) if own else 'it has none of its own'}. Remove it."
            )
    with packages_needed(kind):
        judge = loader(**common, **options)
    judge.name = name or kind
    judge.chunk = chunk
    return judge


REST: Mapping[str, Any] = {"dtype": torch.float32, "gradient_checkpointing": False}
"""What a kind without a network may be given, for it then says nothing."""


@contextmanager
def packages_needed(kind: str) -> Iterator[None]:
    """Tell of a package that a kind needs and that cannot be imported.

    Raises:
        RewardError: names it.
    """
    try:
        yield
    except ImportError as error:
        package = (error.name or "").partition(".")[0] or "a package"
        raise RewardError(
            f"a judge of kind {kind} needs {package}, and here it cannot be imported: {error}. "
            "Everything that judges need is among the dependencies of reward-tuning: install or "
            f"upgrade {package}, or reward-tuning itself, with pip."
        ) from error


def loader_of(kind: str) -> Callable[..., Judge]:  # noqa: PLR0911, PLR0912  # one case a kind
    """The function that loads judges of a kind, imported now and not before.

    Raises:
        RewardError: there is no such kind.
    """
    match kind:
        case "hps":
            from rewards.kinds.hps import load_hps

            return load_hps
        case "clip":
            from rewards.kinds.clip import load_clip

            return load_clip
        case "aesthetic":
            from rewards.kinds.aesthetic import load_aesthetic

            return load_aesthetic
        case "pickscore":
            from rewards.kinds.pickscore import load_pickscore

            return load_pickscore
        case "aesthetic_v2_5":
            from rewards.kinds.aesthetic_v2_5 import load_aesthetic_v2_5

            return load_aesthetic_v2_5
        case "image_reward":
            from rewards.kinds.image_reward import load_image_reward

            return load_image_reward
        case "mps":
            from rewards.kinds.mps import load_mps

            return load_mps
        case "qwen_critic":
            from rewards.kinds.qwen_critic import load_qwen_critic

            return load_qwen_critic
        case "video_align":
            from rewards.kinds.video_align import load_video_align

            return load_video_align
        case "hpsv3":
            from rewards.kinds.hpsv3 import load_hpsv3

            return load_hpsv3
        case "motion_energy":
            from rewards.kinds.motion import MotionEnergy

            return MotionEnergy
        case "motion_flow":
            from rewards.kinds.motion import MotionFlow

            return MotionFlow
        case "flicker":
            from rewards.kinds.motion import Flicker

            return Flicker
        case "consistency":
            from rewards.kinds.consistency import load_consistency

            return load_consistency
        case "vjepa2":
            from rewards.kinds.vjepa2 import load_vjepa2

            return load_vjepa2
        case "dynamic_degree":
            from rewards.kinds.dynamic_degree import load_dynamic_degree

            return load_dynamic_degree
        case "sharpness":
            from rewards.kinds.sharpness import Sharpness

            return Sharpness
        case "no_cuts":
            from rewards.kinds.no_cuts import load_no_cuts

            return load_no_cuts
        case "python":
            from rewards.kinds.python_file import load_python

            return load_python
        case "latent":
            raise RewardError(
                "kind 'latent' scores noisy latents and not frames; load it with "
                "rewards.load_latent_reward."
            )
        case _:
            raise RewardError(f"kind {kind!r} is no judge; allowed: {', '.join(KINDS)}.")
