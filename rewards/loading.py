"""From a kind and a file to a frozen judge.

To add the kind `my`:

1. `rewards/kinds/my.py`: its class (a `rewards.core.base.FrameReward` or `VideoReward`) and its
   loader. A judge with networks takes `load_my(checkpoint, tower_options, *, ...)`, where
   `tower_options` is a `rewards.core.tower_options.TowerOptions`; one with a file and without a
   choice of dtype takes `checkpoint`, `device` and `folder`; one without a file takes `device`
   (and `folder` where its options name files). After these come the options of the kind, with
   defaults. One outside this process derives from `rewards.core.black_box.BlackBoxReward`.
2. A line in `LOADERS`.
3. Its section in `reward_tuning/schema/judge_kinds.py`, with the same options as keys.
4. For published files, their records in `rewards/core/published.json`.

`docs/rewards.md` lists the kinds in two tables, and `benchmarks/judges.py` the shipped judges.

A judge that reads texts up to a length sets its `context_length` and implements
`truncated(prompts)`, so that the user is warned of long prompts. A judge without a gradient sets
`differentiable = False` in its class and in its section.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from rewards.core.base import FrozenReward
from rewards.core.locate import resolve_file
from rewards.core.shared_towers import TowerPool
from rewards.core.tower_options import TowerOptions
from rewards.core.weight_file import verify_sha256
from rewards.errors import RewardError

LOADERS: Mapping[str, str] = {
    "hps": "rewards.kinds.hps:load_hps",
    "clip": "rewards.kinds.clip:load_clip",
    "aesthetic": "rewards.kinds.aesthetic:load_aesthetic",
    "pickscore": "rewards.kinds.pickscore:load_pickscore",
    "aesthetic_v2_5": "rewards.kinds.aesthetic_v2_5:load_aesthetic_v2_5",
    "image_reward": "rewards.kinds.image_reward:load_image_reward",
    "mps": "rewards.kinds.mps:load_mps",
    "qwen_critic": "rewards.kinds.qwen_critic:load_qwen_critic",
    "video_align": "rewards.kinds.video_align:load_video_align",
    "hpsv3": "rewards.kinds.hpsv3:load_hpsv3",
    "motion_energy": "rewards.kinds.motion:MotionEnergy",
    "motion_flow": "rewards.kinds.motion:MotionFlow",
    "flicker": "rewards.kinds.motion:Flicker",
    "consistency": "rewards.kinds.consistency:load_consistency",
    "vjepa2": "rewards.kinds.vjepa2:load_vjepa2",
    "dynamic_degree": "rewards.kinds.dynamic_degree:load_dynamic_degree",
    "sharpness": "rewards.kinds.sharpness:Sharpness",
    "no_cuts": "rewards.kinds.no_cuts:load_no_cuts",
    "python": "rewards.kinds.python_file:load_python",
    "http": "rewards.kinds.http:load_http",
    "command": "rewards.kinds.command:load_command",
    "vlm": "rewards.kinds.vlm:load_vlm",
}
"""Kinds of judges of frames, each with the `module:function` that loads it.

A module is imported when its kind is first loaded: some need seconds. Judges of noisy latents are
loaded by `rewards.load_latent_reward`.
"""

KINDS = tuple(LOADERS)

TOWER_KEYWORDS = tuple(field.name for field in fields(TowerOptions))
COMMON = ("checkpoint", *TOWER_KEYWORDS)
"""Keywords of `loader_keywords` that are not options of one kind."""


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
) -> FrozenReward:
    """Load a frozen judge of frames.

    The many parameters are the keys of a judge in a recipe.

    Args:
        kind: One of `KINDS`.
        checkpoint: A shipped name (`tiny/hps.safetensors`), a path, a published name (`hps-v2.1`)
            or a hub id (`org/repo/file`, `org/repo/file@revision`); None for a kind without a
            file, or for the default file of the kind.
        device: Device that the judge runs on.
        dtype: Dtype of the networks; scores are fp32.
        name: Name in metrics; the kind if not given.
        folder: Folder that relative paths start from; the working directory if not given.
        sha256: Expected hash of the file, 64 hexadecimal digits, checked before it is read.
        chunk: Frames (clips, for a judge of whole clips) scored in one pass; bounds the memory,
            changes no number.
        gradient_checkpointing: Recompute each block of a network in the backward pass.
        pool: Where judges with equal networks share them; None for a judge alone.
        options: Options of the kind, such as `architecture`, `tower` and `relative` (see its
            loader).

    Returns:
        The judge, in evaluation mode, without trainable parameters.

    Raises:
        RewardError: An unknown kind; an option that the kind does not have; a file that is missing,
            damaged, changed or of another kind, or one for a kind without; a package that the
            kind needs and that is not installed, or in another version.
    """
    device = torch.device(device)
    tower_options = TowerOptions(device, dtype, folder, gradient_checkpointing, pool)
    keywords = loader_keywords(kind)
    # Refused rather than ignored: a dtype that does nothing would look as if it saved memory.
    asked = {"dtype": dtype, "gradient_checkpointing": gradient_checkpointing}
    changed = [key for key, value in asked.items() if value != getattr(TowerOptions, key)]
    own = [key for key in keywords if key not in COMMON]
    for key in (*options, *changed):
        if key not in keywords:
            allowed = f"allowed: {', '.join(own)}" if own else "it has none"
            raise RewardError(f"kind {kind} has no option {key}; {allowed}. Remove it")
    arguments = dict(options)
    if "checkpoint" in keywords:
        if checkpoint is None:
            checkpoint = keywords["checkpoint"]
        if checkpoint is inspect.Parameter.empty or checkpoint is None:
            raise RewardError(f"kind {kind} needs a file; give its checkpoint")
        if sha256 is not None:
            verify_sha256(resolve_file(checkpoint, folder), sha256)
        arguments["checkpoint"] = checkpoint
    elif checkpoint is not None:
        raise RewardError(f"kind {kind} has no file; remove the checkpoint {str(checkpoint)!r}")
    if "pool" in keywords:
        arguments["tower_options"] = tower_options
    else:
        arguments |= {"device": device} | ({"folder": folder} if "folder" in keywords else {})
    for key in own:
        if keywords[key] is inspect.Parameter.empty and key not in arguments:
            raise RewardError(f"kind {kind} needs {key}; give it, as {key}=...")
    with explained_imports(kind):
        judge = loader_of(kind)(**arguments)
    judge.name = name or kind
    judge.chunk = chunk
    return judge


def loader_keywords(kind: str) -> dict[str, Any]:
    """Return the keywords that load a kind, with their defaults.

    The fields of `TowerOptions` are listed one by one. A keyword without a default has
    `inspect.Parameter.empty`.

    Raises:
        RewardError: There is no such kind, or a package that it needs cannot be imported.
    """
    with explained_imports(kind):
        parameters = inspect.signature(loader_of(kind)).parameters
    keywords: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if name == "tower_options":
            keywords |= {field.name: field.default for field in fields(TowerOptions)}
        else:
            keywords[name] = parameter.default
    return keywords


@contextmanager
def explained_imports(kind: str) -> Iterator[None]:
    """Turn a failed import into a message that names the package and the kind that needs it.

    Raises:
        RewardError: A package cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        package = (error.name or "").partition(".")[0] or "a package"
        raise RewardError(
            f"kind {kind} needs {package}, which cannot be imported here: {error}. Every package "
            f"that judges need is a dependency of reward-tuning: install or upgrade {package}, or "
            "reward-tuning itself, with pip"
        ) from error


def loader_of(kind: str) -> Callable[..., FrozenReward]:
    """Import and return the function that loads judges of a kind.

    Raises:
        RewardError: There is no such kind.
    """
    if kind == "latent":
        raise RewardError(
            "kind 'latent' scores noisy latents, not frames; load it with "
            "rewards.load_latent_reward"
        )
    if kind not in LOADERS:
        raise RewardError(f"unknown judge kind {kind!r}; allowed: {', '.join(KINDS)}")
    module, _, function = LOADERS[kind].partition(":")
    loader: Callable[..., FrozenReward] = getattr(import_module(module), function)
    return loader
